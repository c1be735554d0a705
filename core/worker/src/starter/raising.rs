//! Starting zygotes: sandboxes that load what their copies shall have, and wait to be copied.
//!
//! Invariant: what a zygote prints is thrown away, and it serves no invocation. It does not know when a function gets one, or how its image
//! is taken.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vilya_isolate::{Descriptors, Spec};

use super::likeness::SEARCH_PATH;
use super::{Start, Starter};
use crate::manifest::Runtime;
use crate::rehearsal::Part;
use crate::zygotes::{Subject, Zygote};

/// Tells a runtime that it is to wait until it is copied.
const ZYGOTE_VARIABLE: &str = "VILYA_ZYGOTE";

impl Starter {
    /// Starts a sandbox of the function that loads it and then waits to be copied. What it prints is thrown away: the sandboxes that were
    /// started whole have printed it.
    pub(super) fn raise_zygote_of(
        &mut self,
        mut spec: Spec,
        start: &Start,
        imports: Vec<String>,
    ) -> Result<(), String> {
        let part = Part { spec: spec.clone(), lanes: start.record.manifest.concurrency, tells_environment: false };
        spec.name.insert(0, 'z');
        spec.environment.push((ZYGOTE_VARIABLE.into(), "function".into()));
        if !imports.is_empty() {
            spec.environment.push(("VILYA_LEARNED".into(), imports.join(" ")));
        }
        self.raise_zygote(
            &spec,
            part,
            Subject::Function { record: Arc::clone(&start.record), function: start.function, imports },
        )
    }

    /// Starts the Python runtime without a function. Without its image, the first sandboxes of a function are started from the beginning.
    pub(super) fn raise_runtime(&mut self) {
        let Some(command) = self.defaults.python_command() else { return };
        let environment = vec![
            ("PATH".into(), SEARCH_PATH.into()),
            ("LANG".into(), "C.UTF-8".into()),
            (ZYGOTE_VARIABLE.into(), "runtime".into()),
        ];
        let spec = Spec { name: "zygote-python".into(), command, environment, ..self.defaults.template() };
        let mut copied = spec.clone();
        // In a rehearsal it serves what every Python has.
        copied.environment[2] = ("VILYA_HANDLER".into(), "json.loads".into());
        let part = Part { spec: copied, lanes: 1, tells_environment: true };
        if let Err(why) = self.raise_zygote(&spec, part, Subject::Runtime(Runtime::Python)) {
            tracing::info!("no zygote of the Python runtime: {why}");
            self.zygotes.iter().for_each(|zygotes| zygotes.runtime_not_made());
        }
    }

    fn raise_zygote(&mut self, spec: &Spec, part: Part, subject: Subject) -> Result<(), String> {
        let Some(zygotes) = &self.zygotes else { return Ok(()) };
        let failed = |error: io::Error| format!("cannot prepare a zygote: {error}");
        let (says, told) = UnixStream::pair().map_err(failed)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(failed);
        let descriptors = Descriptors { ring: [told.into(), null()?, null()?], stdout: null()?, stderr: null()? };
        let started = self.mechanisms.chosen().start(spec, descriptors).map_err(|error| error.to_string())?;
        let patience = self.defaults.start_timeout;
        let working_directory = spec.working_directory.clone();
        let limit_bytes = spec.limits.memory_bytes.min(self.defaults.zygotes_bytes);
        zygotes.raise(Zygote { subject, part, started, says, patience, working_directory, limit_bytes });
        Ok(())
    }
}
