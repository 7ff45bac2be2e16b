//! The process of a server that knows nothing of its owner, and so must be ended by somebody when that is gone.
//!
//! An owner that is killed can clean nothing up. So beside its servers runs a guard, a shell whose stdin is a pipe from
//! the owner: when that ends, however it does, the guard kills the servers by their ids and removes their folder.
//! The hard case is an owner that dies just after it has started a server: the guard would not know of it. So a server
//! first waits, as a shell that it will replace, for a word of its owner, which is said once the guard has been
//! told. And a server that is dead is reported before its id is free for others. All are in process groups
//! of their own: a Ctrl-C at the terminal is for the owner, whose end the guard will notice.
use std::{
    ffi::OsStr,
    fs::File,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Failed, log::Log};

const STOPPED_WITHIN: Duration = Duration::from_secs(20);
/// Its lines: `+` and `-` and the id of a server that is there or gone, `.` and the id of one that is to end in
/// good order. What a server writes while it dies may keep its folder from being removed for a moment.
const GUARD: &str = "\
all=
while read -r word id; do
    case $word in
        +) all=\"$all $id\" ;;
        -) left=; for each in $all; do [ $each = $id ] || left=\"$left $each\"; done; all=$left ;;
        .) kill -TERM $id ;;
    esac
done
for each in $all; do kill -KILL $each; done
for try in 1 2 3 4 5 6 7 8 9; do rm -rf \"$0\" && [ ! -e \"$0\" ] && exit; sleep 0.2; done
";
const SERVER: &str = "read -r go && exec \"$0\" \"$@\" </dev/null";

/// A command that is to be started as a [`Process`].
pub(crate) fn server(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", SERVER]).arg(program);
    command
}

/// The temporary folder of one server or several, and their guard.
pub(crate) struct Folder {
    guard: Mutex<Child>,
    folder: TempDir,
}

impl Folder {
    pub fn new(server: &str) -> Result<Arc<Self>, Failed> {
        let folder = tempfile::Builder::new().prefix(&format!("tidegate-{server}-")).tempdir();
        let folder = folder.map_err(|e| format!("a temporary folder: {e}"))?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD]).arg(folder.path()).process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = guard.spawn().map_err(|e| format!("the guard of {server}: sh cannot be started: {e}"))?;
        Ok(Arc::new(Self { guard: Mutex::new(guard), folder }))
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn tell(&self, word: char, id: u32) -> Result<(), Failed> {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let told = guard.stdin.as_mut().map(|stdin| writeln!(stdin, "{word} {id}"));
        told.ok_or("the guard has no stdin")?.map_err(|e| format!("the guard is gone: {e}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let guard = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Which closes its stdin.
        let _ = guard.wait();
    }
}

/// The process of a server, which may be killed and started again.
pub(crate) struct Process {
    name: &'static str,
    child: Option<Child>,
    log: PathBuf,
    boots: u32,
    folder: Arc<Folder>,
}

impl Process {
    pub fn new(name: &'static str, folder: &Arc<Folder>) -> Self {
        Self { name, child: None, log: PathBuf::new(), boots: 0, folder: folder.clone() }
    }

    /// Starts it with a [`server`] command; one that runs is killed before.
    pub fn spawn(&mut self, mut command: Command) -> Result<(), Failed> {
        self.kill();
        self.boots += 1;
        self.log = self.folder.path().join(format!("{}-{}.log", self.name, self.boots));
        let failed = |e: std::io::Error| format!("{}: {e}", self.log.display());
        let out = File::create(&self.log).map_err(failed)?;
        command.stdin(Stdio::piped()).stderr(out.try_clone().map_err(failed)?).stdout(out).process_group(0);
        let mut child = command.spawn().map_err(|e| format!("{}: sh cannot be started: {e}", self.name))?;
        let (id, stdin) = (child.id(), child.stdin.take());
        self.child = Some(child);
        self.folder.tell('+', id)?;
        let told = stdin.map(|mut stdin| stdin.write_all(b"go\n"));
        told.ok_or("the server has no stdin")?.map_err(|e| format!("{}: {e}", self.name))
    }

    /// Waits until it is ready.
    pub fn ready(&mut self, within: Duration, is_ready: impl FnMut() -> bool) -> Result<(), Failed> {
        let child = self.child.as_mut().ok_or_else(|| format!("{} was not started", self.name))?;
        Log(self.log.clone()).until(child, within, is_ready).map_err(|why| format!("{}: {why}", self.name))
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its log since it was last started.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = self.folder.tell('-', child.id());
            let _ = child.wait();
        }
    }

    /// Ends it in good order (SIGTERM); kills it if that takes too long.
    pub fn stop(&mut self) {
        if let Some(child) = &mut self.child {
            let asked = self.folder.tell('.', child.id());
            let until = Instant::now() + STOPPED_WITHIN;
            while asked.is_ok() && matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.kill();
    }

    /// Waits until it ends by itself; says what it said last.
    pub fn wait(&mut self) -> String {
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        Log(self.log.clone()).end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
