//! Telling systemd how the service is doing (`sd_notify(3)`). Without it, as from a terminal, these
//! do nothing. Main thread.

use sd_notify::NotifyState;

/// New clients are answered from now on.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The service ends.
pub(crate) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("cannot tell the service manager at NOTIFY_SOCKET: {error}");
    }
}
