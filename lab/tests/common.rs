//! What the lab's tests share: the lab as a person calls it, and folders of made-up scenarios.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A lab with folders of its own, removed at the end.
pub(crate) struct TestLab {
    folder: TempDir,
}

impl TestLab {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// Adds a scenario file; the first makes `--scenarios` point here.
    pub(crate) fn scenario(&self, name: &str, text: &str) -> &Self {
        let folder = self.scenarios();
        std::fs::create_dir_all(&folder).expect("the folder is ours");
        std::fs::write(folder.join(format!("{name}.toml")), text).expect("the folder is ours");
        self
    }

    /// Adds an adapter file; the first makes `--adapters` point here.
    pub(crate) fn adapter(&self, name: &str, text: &str) -> &Self {
        let folder = self.adapters();
        std::fs::create_dir_all(&folder).expect("the folder is ours");
        std::fs::write(folder.join(format!("{name}.toml")), text).expect("the folder is ours");
        self
    }

    /// Puts a shell script beside the adapters.
    pub(crate) fn program(&self, name: &str, script: &str) -> &Self {
        let folder = self.adapters();
        std::fs::create_dir_all(&folder).expect("the folder is ours");
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the folder is ours");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it is ours");
        self
    }

    /// `dtls-lab run` with these arguments, evidence and scenarios in our folders.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.verb("run", arguments)
    }

    /// `dtls-lab matrix`, likewise.
    pub(crate) fn matrix(&self, arguments: &[&str]) -> Command {
        self.verb("matrix", arguments)
    }

    fn verb(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dtls-lab"));
        command
            .arg(verb)
            .args(arguments)
            .arg("--out")
            .arg(self.out());
        if self.scenarios().is_dir() {
            command.arg("--scenarios").arg(self.scenarios());
        }
        if self.adapters().is_dir() {
            command.arg("--adapters").arg(self.adapters());
        }
        command
            .env_remove("LAB_REQUIRE")
            .env_remove("RUST_LOG")
            .env_remove("RUST_BACKTRACE");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the lab was built with its tests")
    }

    /// Runs and returns the exit status with the report; a lab that could not run at all fails
    /// the test with its own words, so that a machine without namespaces never passes.
    pub(crate) fn report(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.command(arguments).args(["--format", "json"]).output();
        let output = output.expect("the lab was built with its tests");
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!(
                "the lab did not run: {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        (output.status.code().expect("the lab is not killed"), report)
    }

    /// The folder of the evidence of this run of the newest report.
    pub(crate) fn evidence(&self, run: &Value) -> PathBuf {
        let name = run["evidence"].as_str().expect("a run leaves evidence");
        self.out().join("latest").join(name)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn adapters(&self) -> PathBuf {
        self.folder.path().join("adapters")
    }

    fn scenarios(&self) -> PathBuf {
        self.folder.path().join("scenarios")
    }
}

/// The status of each run in a report, in its order.
pub(crate) fn statuses(report: &Value) -> Vec<&str> {
    let runs = report["runs"].as_array().expect("a report has runs");
    runs.iter()
        .map(|run| run["status"].as_str().expect("a run has a status"))
        .collect()
}

/// Why the run of this scenario did not pass.
pub(crate) fn why<'a>(report: &'a Value, scenario: &str) -> &'a str {
    let runs = report["runs"].as_array().expect("a report has runs");
    let run = runs.iter().find(|run| run["scenario"] == scenario);
    run.expect("the scenario was run")["why"]
        .as_str()
        .expect("a run has a reason")
}

/// A perfect wire between OpenSSL's own programs; the control of the made-up scenarios.
pub(crate) const CLEAN: &str = r#"
name = "clean"
claim = "OpenSSL talks to itself."
families = ["ipv4"]

[[play]]
server = "openssl"
server_args = ["-listen"]
client = "openssl"
"#;
