//! The error every tidegate crate returns: few kinds, each of which tells the user what to do.
//!
//! Precise enums live inside the modules (`ManifestError`, ...); at the crate's edge they become one
//! [`Error`] whose [`Kind`] answers the only question a caller has: retry, mend the configuration,
//! mend the data, stop because another attempt took over, restore from elsewhere, mend my own code,
//! or report a bug.
use std::{fmt, sync::Arc};

/// What the caller should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The job, its settings or its environment are wrong: mend them; retrying changes nothing.
    Config,
    /// A record cannot be decoded or processed: mend the data or choose another policy.
    Data,
    /// Something outside (a store, a server, a disk) failed: retrying may help.
    Unavailable,
    /// A newer attempt of the same job has taken over: stop, never retry.
    Fenced,
    /// A stored object is damaged, missing, of another job or of a newer format.
    Corrupt,
    /// The user's own function returned an error or panicked.
    User,
    /// An invariant of tidegate itself is broken: please report it.
    Internal,
}

impl Kind {
    /// Whether starting the attempt again may help. A record that cannot be read is no better the next time.
    pub fn is_retriable(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::User | Kind::Internal)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Config => "configuration",
            Kind::Data => "data",
            Kind::Unavailable => "unavailable",
            Kind::Fenced => "fenced",
            Kind::Corrupt => "corrupt",
            Kind::User => "user code",
            Kind::Internal => "internal",
        })
    }
}

/// The result of everything that can fail in tidegate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// An error with its kind, what happened, and a hint what to do about it.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    cause: Option<Cause>,
}

impl Error {
    /// An error of `kind`; `message` says what happened, and to what.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, cause: None }
    }

    /// [`Kind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }
    /// [`Kind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }
    /// [`Kind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }
    /// [`Kind::Fenced`].
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(Kind::Fenced, message)
    }
    /// [`Kind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }
    /// [`Kind::User`].
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message)
    }
    /// [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Adds what the user should do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds the error this one was caused by.
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }
    /// Says where it happened: `place: message`.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// What happened, without hint and cause.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// What the user should do, where something can be said.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// As it is displayed, since that is how a `main` that returns it shows it; `{:#?}` has the fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write!(f, "{self}");
        }
        let Self { kind, message, hint, cause } = self;
        let mut fields = f.debug_struct("Error");
        fields.field("kind", kind).field("message", message).field("hint", hint).field("cause", cause).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = self.cause.as_deref().map(|c| c as &dyn std::error::Error);
        while let Some(c) = cause {
            write!(f, ": {c}")?;
            cause = c.source();
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|c| c as _)
    }
}
