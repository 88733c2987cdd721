//! Giving up root: to whom, when, and the proof that it is gone. Main thread, at the start, before
//! any other thread of ours runs.
//!
//! Files are read as root. Ports that need root are bound as root, all others afterwards: with
//! SO_REUSEPORT the kernel lets a port be shared by sockets of one user only (`socket(7)`), and each
//! connection of the `connected` transport binds the port again.

use std::ffi::CString;
use std::fs;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{
    Gid, Uid, User as Account, geteuid, getgroups, getresgid, getresuid, initgroups, setresgid,
    setresuid,
};

/// Whom to become.
#[derive(Debug)]
pub(crate) struct User {
    name: String,
    /// The same, as the system's library wants it.
    login: CString,
    uid: Uid,
    gid: Gid,
}

/// Why root's privileges cannot be given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    /// A name that means nothing.
    #[error("{name}: there is no such user; make one: useradd --system {name}")]
    Nobody {
        /// As it was typed.
        name: String,
    },
    /// The name of root.
    #[error("{name}: that gives nothing up; name a user without privileges, or leave it out")]
    Root {
        /// As it was typed.
        name: String,
    },
    /// Another user started the server.
    #[error(
        "--user {name}: only root can become another user; start the server as root, or as {name}"
    )]
    NotRoot {
        /// As it was typed.
        name: String,
    },
    /// The system refuses.
    #[error("--user {name}: failed to {step}: {source}")]
    System {
        /// As it was typed.
        name: String,
        /// What was being done.
        step: &'static str,
        /// The system's reason.
        source: Errno,
    },
    /// Something is left.
    #[error(
        "--user {name}: root's privileges were not given up for good ({what}); nothing is served"
    )]
    Left {
        /// As it was typed.
        name: String,
        /// What is left.
        what: &'static str,
    },
}

impl User {
    /// Looks the user up.
    ///
    /// # Errors
    /// There is none, or it is root.
    pub(crate) fn find(name: &str) -> Result<Self, PrivilegeError> {
        let (login, name) = (CString::new(name), name.to_owned());
        let Ok(login) = login else {
            return Err(PrivilegeError::Nobody { name });
        };
        match Account::from_name(&name) {
            Ok(Some(account)) if account.uid.is_root() => Err(PrivilegeError::Root { name }),
            Ok(Some(account)) => Ok(Self {
                name,
                login,
                uid: account.uid,
                gid: account.gid,
            }),
            Ok(None) => Err(PrivilegeError::Nobody { name }),
            Err(source) => Err(PrivilegeError::System {
                name,
                step: "look it up",
                source,
            }),
        }
    }

    /// As it was typed.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// As whom the system knows it.
    pub(crate) fn uid(&self) -> Uid {
        self.uid
    }

    /// Becomes this user, with its groups, for good.
    ///
    /// # Errors
    /// The process is not root's, or not all of root's privileges are gone afterwards.
    pub(crate) fn assume(&self) -> Result<(), PrivilegeError> {
        let name = || self.name.clone();
        if !geteuid().is_root() {
            return Err(PrivilegeError::NotRoot { name: name() });
        }
        let system = |step| move |source| (step, source);
        // The user last: it takes the right to the other two along, and all capabilities.
        initgroups(&self.login, self.gid)
            .map_err(system("take its groups"))
            .and_then(|()| {
                setresgid(self.gid, self.gid, self.gid).map_err(system("take its group"))
            })
            .and_then(|()| setresuid(self.uid, self.uid, self.uid).map_err(system("become it")))
            .and_then(|()| set_no_new_privs().map_err(system("rule out further privileges")))
            .map_err(|(step, source)| PrivilegeError::System {
                name: name(),
                step,
                source,
            })?;
        match self.left() {
            None => Ok(()),
            Some(what) => Err(PrivilegeError::Left { name: name(), what }),
        }
    }

    /// What is left of root after all.
    fn left(&self) -> Option<&'static str> {
        let root = Uid::from_raw(0);
        let is_user =
            getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [self.uid; 3]);
        let is_group =
            getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [self.gid; 3]);
        let in_roots_group = getgroups()
            .is_ok_and(|groups| groups.contains(&Gid::from_raw(0)) && self.gid.as_raw() != 0);
        if !is_user {
            Some("a user id")
        } else if !is_group {
            Some("a group id")
        } else if in_roots_group {
            Some("root's group")
        } else if capable() {
            Some("a capability")
        } else if setresuid(root, root, root).is_ok() {
            Some("the way back")
        } else {
            None
        }
    }
}

/// Whether the process has a capability, see `capabilities(7)`. One that cannot be read counts.
fn capable() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["CapPrm:", "CapEff:", "CapAmb:"].iter().any(|set| {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        line.is_none_or(|mask| mask.trim().chars().any(|digit| digit != '0'))
    })
}

/// Whether only root may bind it.
pub(crate) fn needs_root(address: SocketAddr) -> bool {
    (1..unprivileged_port_start()).contains(&address.port())
}

/// The lowest port that everybody may bind (`ip(7)`).
pub(crate) fn unprivileged_port_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}
