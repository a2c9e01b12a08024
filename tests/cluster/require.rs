//! What a test may lack on an ordinary machine. It says so and passes then, unless `HOLDFAST_REQUIRE=all` is set.

use std::io::Write as _;
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

/// Says why a test is skipped, or fails it.
pub(crate) fn lacks(what: &str) -> bool {
    let required = std::env::var_os("HOLDFAST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required, "HOLDFAST_REQUIRE=all, and {what}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not captured, unlike println: a skip that nobody sees is no skip.
    drop(writeln!(std::io::stderr(), "SKIPPED: {test}: {what}"));
    false
}
