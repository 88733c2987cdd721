//! The two ends of a connection. Plain values.

/// Which side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Serves.
    Server,
    /// Connects.
    Client,
}

impl Role {
    /// The word for people, and the name of its log file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}
