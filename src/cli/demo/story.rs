//! How the demonstration is told: numbered steps with what they took, for a reader who never saw it.

use std::time::Instant;

use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::output::{Format, Printer, Sheet, Show};

/// Tells the story. In JSON mode the telling goes to stderr, and a summary to stdout.
pub(super) struct Story {
    printer: Printer,
    started: Instant,
    step_started: Instant,
    steps: Vec<StepView>,
}

#[derive(Debug, Clone, Serialize)]
struct StepView {
    number: usize,
    title: String,
    seconds: f64,
    held: bool,
}

/// The summary.
#[derive(Debug, Serialize)]
struct Summary {
    ok: bool,
    seconds: f64,
    steps: Vec<StepView>,
}

impl Show for Summary {
    fn sheet(&self) -> Sheet {
        let steps = self.steps.len();
        Sheet::new().line("").line(format!("All {steps} steps held, in {:.1} s.", self.seconds))
    }
}

impl Story {
    pub(super) fn new(printer: Printer) -> Self {
        let now = Instant::now();
        Self { printer, started: now, step_started: now, steps: Vec::new() }
    }

    /// Prints a line.
    pub(super) fn say(&self, line: impl AsRef<str>) -> Result<(), CliError> {
        match self.printer.format() {
            Format::Table => self.printer.raw(format!("{}\n", line.as_ref()).as_bytes()),
            Format::Json => {
                self.printer.progress(line);
                Ok(())
            }
        }
    }

    /// Prints a result with indentation.
    pub(super) fn show(&self, result: &impl Show) -> Result<(), CliError> {
        result.sheet().as_str().lines().try_for_each(|line| self.say(format!("     {line}")))
    }

    /// Begins a step.
    pub(super) fn begin(&mut self, title: &str) -> Result<(), CliError> {
        self.step_started = Instant::now();
        let number = self.steps.len().saturating_add(1);
        self.steps.push(StepView { number, title: title.to_owned(), seconds: 0.0, held: false });
        self.say("")?;
        self.say(format!("{number:>2}. {title}"))
    }

    /// Explains something within a step.
    pub(super) fn note(&self, line: impl AsRef<str>) -> Result<(), CliError> {
        self.say(format!("    {}", line.as_ref()))
    }

    /// Ends a step well.
    pub(super) fn held(&mut self) -> Result<(), CliError> {
        let seconds = self.step_started.elapsed().as_secs_f64();
        if let Some(step) = self.steps.last_mut() {
            step.seconds = seconds;
            step.held = true;
        }
        self.note(format!("ok ({seconds:.1} s)"))
    }

    /// Names the step that was under way when something went wrong.
    pub(super) fn failed(&self, error: &CliError) -> CliError {
        let step = self.steps.last().filter(|step| !step.held);
        match step {
            Some(step) => CliError::failed(format!(
                "step {} ({}) does not hold: {error}",
                step.number, step.title
            )),
            None => CliError::failed(error.to_string()),
        }
    }

    /// The error of a story that was told to stop.
    pub(super) fn stopped(&self) -> CliError {
        CliError::failed(format!("stopped by a signal, in step {}", self.steps.len()))
    }

    /// Ends the story.
    pub(super) fn end(self) -> Result<(), CliError> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.printer.print(&Summary { ok: true, seconds, steps: self.steps })
    }
}
