//! What is in an HDFS, as its own web interface says: asked as the superuser, who may see everything, or as anybody
//! else, since without Kerberos a name is all that it takes.
use super::{Hdfs, SUPERUSER};
use crate::{
    Failed,
    http::{self, Reply},
};

impl Hdfs {
    /// Where its web interface does an operation, as the superuser: for who wants to see it with a client of their own.
    pub fn web(&self, path: &str, operation: &str) -> String {
        format!("http://127.0.0.1:{}/webhdfs/v1{path}?{operation}&user.name={SUPERUSER}", self.ports.name_web)
    }

    /// Asks as a user: method, path, and the operation with its parameters (`op=GETFILESTATUS`), as `WebHDFS` names
    /// them. Where the `NameNode` names a `DataNode`, that is asked.
    pub fn ask(&self, user: &str, method: &str, path: &str, operation: &str, body: &[u8]) -> Result<Reply, Failed> {
        let address = format!("127.0.0.1:{}", self.ports.name_web);
        let first = format!("/webhdfs/v1{path}?{operation}&user.name={user}");
        let reply = http::ask(&address, method, &first, &[], &[])?;
        if reply.status != 307 {
            return Ok(reply);
        }
        let there = reply.header("location").and_then(|location| location.strip_prefix("http://")?.split_once('/'));
        let (address, path) = there.ok_or_else(|| format!("HDFS leads nowhere: {}", reply.head))?;
        let reply = http::ask(address, method, &format!("/{path}"), &[], body)?;
        if !reply.text().contains("\"EOFException\"") {
            return Ok(reply);
        }
        // The DataNode has asked a NameNode that is dead, on the line that it had to that: the new one has seen nothing.
        http::ask(address, method, &format!("/{path}"), &[], body)
    }

    fn done(&self, method: &str, path: &str, operation: &str, body: &[u8]) -> Result<Reply, Failed> {
        let reply = self.ask(SUPERUSER, method, path, operation, body)?;
        if reply.status < 300 {
            return Ok(reply);
        }
        Err(format!("HDFS, {method} {path} {operation}: {} {}", reply.status, reply.text()))
    }

    /// Writes a file, and the folders that it takes; one that is there is replaced.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Failed> {
        self.done("PUT", path, "op=CREATE&overwrite=true", bytes).map(drop)
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Failed> {
        self.done("GET", path, "op=OPEN", &[]).map(|reply| reply.body)
    }

    /// The names in a folder.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Failed> {
        let text = self.done("GET", path, "op=LISTSTATUS", &[])?.text();
        let names = text.split("\"pathSuffix\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Makes a folder that is a user's, with a mode, as `755`.
    pub fn make_folder(&self, path: &str, owner: &str, mode: &str) -> Result<(), Failed> {
        self.done("PUT", path, &format!("op=MKDIRS&permission={mode}"), &[])?;
        self.done("PUT", path, &format!("op=SETOWNER&owner={owner}"), &[]).map(drop)
    }

    /// Gives a file or a folder another mode, as `555`.
    pub fn set_mode(&self, path: &str, mode: &str) -> Result<(), Failed> {
        self.done("PUT", path, &format!("op=SETPERMISSION&permission={mode}"), &[]).map(drop)
    }

    /// Removes a file, or a folder with all that is in it.
    pub fn remove(&self, path: &str) -> Result<(), Failed> {
        self.done("DELETE", path, "op=DELETE&recursive=true", &[]).map(drop)
    }
}
