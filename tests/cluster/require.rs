//! What a test may lack on an ordinary machine. It says so and passes then, unless `HOLDFAST_REQUIRE=all` is set.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether the test runs as root.
pub(crate) fn root() -> bool {
    rustix::process::geteuid().is_root() || lacks("it needs root")
}

/// Whether a program is installed; `.ci/packages` names its Debian package.
pub(crate) fn tool(name: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", name]).stdout(Stdio::null());
    command.status().unwrap().success() || lacks(&format!("it needs the program {name}"))
}

/// A Python that has oidc-provider-mock: that of `.ci/run`, or the one that HOLDFAST_OIDC_PYTHON names.
pub(crate) fn oidc_provider() -> Option<PathBuf> {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/oidc/bin/python3");
    let python = std::env::var_os("HOLDFAST_OIDC_PYTHON").map_or_else(own, PathBuf::from);
    let found = Command::new(&python).args(["-c", "import oidc_provider_mock"]).output();
    if found.is_ok_and(|found| found.status.success()) {
        return Some(python);
    }
    lacks(&format!(
        "it needs oidc-provider-mock: python3 -m venv target/tools/oidc && target/tools/oidc/bin/pip install -r .ci/python-packages ({} has none)",
        python.display()
    ));
    None
}

/// Says why a test is skipped, or fails it.
fn lacks(what: &str) -> bool {
    let required = std::env::var_os("HOLDFAST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required, "HOLDFAST_REQUIRE=all, and {what}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not captured, unlike println: a skip that nobody sees is no skip.
    drop(writeln!(std::io::stderr(), "SKIPPED: {test}: {what}"));
    false
}
