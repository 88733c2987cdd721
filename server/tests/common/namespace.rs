//! A network of the test's own.

use std::process::Command;

/// Runs the calling test once more in a network namespace that the shell has prepared; `true` in there.
/// `more` are further arguments of unshare(1).
pub(crate) fn inside(test: &str, more: &[&str], prepare: &str) -> bool {
    const INSIDE: &str = "DTLS_TEST_INSIDE_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let script = format!("ip link set lo up && {prepare} && exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .arg("--net")
        .args(more)
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .output()
        .expect("this test needs unshare(1) and ip(8): make deps");
    assert!(output.status.success(), "in the namespace: {output:#?}");
    // One that filtered everything out would pass, too.
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    false
}
