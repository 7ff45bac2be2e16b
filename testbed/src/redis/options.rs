//! What a server is started with: by default one that loses nothing that it has confirmed, and evicts nothing. The
//! engine must also find out those that do, so every line of the configuration can be another.
use std::fmt::Write as _;

/// Confirmed is what is on disk, and memory is never made by forgetting keys.
const ALWAYS: &str = "\
bind 127.0.0.1
appendonly yes
appendfsync always
save \"\"
maxmemory-policy noeviction
repl-diskless-sync-delay 0
daemonize no
";

/// What may be chosen about a server.
#[derive(Clone, Default)]
pub struct Options {
    pub(super) port: Option<u16>,
    pub(super) password: Option<String>,
    lines: Vec<(String, String)>,
}

impl Options {
    /// One line of the server's configuration (`maxmemory`, `10mb`); it wins over what it would be otherwise. A value
    /// that is empty is written `""`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.lines.push((name.to_owned(), value.to_string()));
        self
    }

    /// A given port; without it, a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Nobody comes in without this password, but for the users of [`user`](Self::user) with theirs.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.set("requirepass", password)
    }

    /// A user with a password and rights in the words of ACL SETUSER: `~orders:* +get +set`.
    #[must_use]
    pub fn user(self, name: &str, password: &str, rights: &str) -> Self {
        self.set("user", format!("{name} on >{password} {rights}"))
    }

    /// Keeps nothing over a restart.
    #[must_use]
    pub fn in_memory(self) -> Self {
        self.set("appendonly", "no")
    }

    /// The text of the configuration: of a line that is there twice the last one counts.
    pub(super) fn text(&self, port: u16) -> String {
        let mut text = format!("{ALWAYS}port {port}\n");
        for (name, value) in &self.lines {
            let _ = writeln!(text, "{name} {value}");
        }
        text
    }
}
