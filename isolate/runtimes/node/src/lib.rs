//! The addon of the Node runtime: what `vilya_runtime` needs of the rings, as objects of JavaScript.
//!
//! A thread waits for the worker and hands what it says to the event loop; answers are published by the loop's own thread.
//! Invariant: an invocation is answered at most once, and what JavaScript keeps of it is a copy. It knows no handlers: those
//! are the business of the files in `vilya_runtime`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::{BufferSlice, FnArgs, Function, Object, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunctionCallMode, UnknownReturnValue};
use napi::{Env, Error, Result, Status};
use napi_derive::napi;
use vilya_runtime::events::{Event, Intake, Outlet, Task, join, join_when_told};

/// The release that this addon is of; the files beside it must be of the same.
#[napi]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The most bytes of a part of an answer.
#[napi]
pub const PART_BYTES: u32 = vilya_runtime::events::PART_BYTES as u32;

/// The worker that this process is a sandbox of.
#[napi]
pub struct Channel {
    /// Until it serves.
    intake: Option<Intake>,
    outlet: Arc<Mutex<Outlet>>,
    /// What was told of the function.
    environment: Vec<u8>,
}

/// An invocation to be answered.
#[napi]
pub struct Invocation {
    /// Until it is answered.
    task: Option<Task>,
    outlet: Arc<Mutex<Outlet>>,
}

/// What is handed to the event loop.
enum Told {
    Invoke(Task),
    Cancelled,
    Stop,
}

fn lock(outlet: &Mutex<Outlet>) -> MutexGuard<'_, Outlet> {
    outlet.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::new(Status::GenericFailure, error.to_string())
}

#[napi]
impl Channel {
    /// Joins the worker over descriptors 3, 4 and 5.
    #[napi(factory)]
    pub fn join() -> Result<Channel> {
        let (intake, outlet) = join().map_err(refused)?;
        Ok(Channel { intake: Some(intake), outlet: Arc::new(Mutex::new(outlet)), environment: Vec::new() })
    }

    /// Waits on descriptor 3 until this process is told which function it is, and joins the worker then.
    #[napi(factory)]
    pub fn join_when_told() -> Result<Channel> {
        let (environment, intake, outlet) = join_when_told().map_err(refused)?;
        Ok(Channel { intake: Some(intake), outlet: Arc::new(Mutex::new(outlet)), environment })
    }

    /// The environment that was told: `NAME=value` with a NUL each.
    #[napi]
    pub fn environment(&self) -> String {
        String::from_utf8_lossy(&self.environment).into_owned()
    }

    /// The longest account of a failure, in bytes.
    #[napi(getter)]
    pub fn failure_limit(&self) -> u32 {
        u32::try_from(lock(&self.outlet).failure_limit_bytes()).unwrap_or(u32::MAX)
    }

    /// Tells the worker that the handler cannot be loaded.
    #[napi]
    pub fn init_failed(&self, account: String) {
        lock(&self.outlet).init_failed(account.as_bytes());
    }

    /// Tells the worker that invocations may come, and calls `told(invocation, stops)` with each. Without an invocation it
    /// says that some other was cancelled, or, where `stops` is true, that nothing comes any more.
    #[napi]
    pub fn serve(&mut self, told: Function<'_, FnArgs<(Option<Invocation>, bool)>, UnknownReturnValue>) -> Result<()> {
        let intake = self.intake.take().ok_or_else(|| refused("this process serves already; call it once"))?;
        let outlet = Arc::clone(&self.outlet);
        let told = told.build_threadsafe_function::<Told>().build_callback(move |call| {
            let stops = matches!(call.value, Told::Stop);
            let task = if let Told::Invoke(task) = call.value { Some(task) } else { None };
            let invocation = task.map(|task| Invocation { task: Some(task), outlet: Arc::clone(&outlet) });
            Ok(FnArgs::from((invocation, stops)))
        })?;
        lock(&self.outlet).ready();
        let tell = move |value| {
            told.call(value, ThreadsafeFunctionCallMode::NonBlocking);
        };
        std::thread::Builder::new().name("vilya-intake".into()).spawn(move || listen(intake, tell)).map_err(refused)?;
        Ok(())
    }
}

/// Waits for the worker until it says stop. A process that no longer hears it is of no use to anyone.
fn listen(mut intake: Intake, tell: impl Fn(Told)) {
    let heard = catch_unwind(AssertUnwindSafe(|| {
        loop {
            match intake.wait() {
                Event::Invoke(task) => tell(Told::Invoke(task)),
                Event::Cancelled => tell(Told::Cancelled),
                Event::Stop => return tell(Told::Stop),
            }
        }
    }));
    if heard.is_err() {
        std::process::abort();
    }
}

#[napi]
impl Invocation {
    fn task(&mut self) -> Result<&mut Task> {
        self.task.as_mut().ok_or_else(|| refused("this invocation is answered already"))
    }

    /// The request's bytes, copied.
    #[napi]
    pub fn bytes<'env>(&mut self, env: &'env Env) -> Result<BufferSlice<'env>> {
        BufferSlice::copy_from(env, self.task()?.parts().0.payload())
    }

    /// The request's bytes as text; `null` where they are not UTF-8.
    #[napi]
    pub fn text(&mut self) -> Result<Option<&str>> {
        Ok(std::str::from_utf8(self.task()?.parts().0.payload()).ok())
    }

    /// 32 hexadecimal digits.
    #[napi]
    pub fn id(&mut self) -> Result<String> {
        Ok(self.task()?.parts().0.id().to_owned())
    }

    /// The client's content type; `null` when it named none.
    #[napi]
    pub fn content_type(&mut self) -> Result<Option<&str>> {
        Ok(self.task()?.parts().0.content_type())
    }

    /// The client's `traceparent`; `null` when it sent none.
    #[napi]
    pub fn trace_parent(&mut self) -> Result<Option<&str>> {
        Ok(self.task()?.parts().0.trace_parent())
    }

    /// When the worker received it, in milliseconds since the Unix epoch.
    #[napi]
    pub fn received_unix_ms(&mut self) -> Result<f64> {
        Ok(self.task()?.parts().0.received_unix_ms() as f64)
    }

    /// Milliseconds until the worker gives it up.
    #[napi]
    pub fn remaining_ms(&mut self) -> Result<f64> {
        Ok(self.task()?.parts().0.remaining().as_millis() as f64)
    }

    /// Whether nobody waits for an answer any more.
    #[napi]
    pub fn cancelled(&self) -> bool {
        self.task.as_ref().is_some_and(Task::cancelled)
    }

    /// Answers with bytes.
    #[napi]
    pub fn answer_bytes(&mut self, bytes: Uint8Array, content_type: Option<String>) -> Result<()> {
        self.answer(&bytes, content_type.as_deref())
    }

    /// Answers with text.
    #[napi]
    pub fn answer_text(&mut self, text: String, content_type: Option<String>) -> Result<()> {
        self.answer(text.as_bytes(), content_type.as_deref())
    }

    fn answer(&mut self, bytes: &[u8], content_type: Option<&str>) -> Result<()> {
        let (_, mut response) = self.task()?.parts();
        if let Some(content_type) = content_type {
            response.set_content_type(content_type).map_err(refused)?;
        }
        response.reserve(bytes.len()).map_err(refused)?.copy_from_slice(bytes);
        if let Some(task) = self.task.take() {
            lock(&self.outlet).returned(task);
        }
        Ok(())
    }

    /// Sends a part of the answer, at most `PART_BYTES` of it. A promise of whether somebody takes more; nothing else may be said of the
    /// invocation before.
    #[napi]
    pub fn send_part<'env>(
        &mut self,
        env: &'env Env,
        bytes: Uint8Array,
        content_type: Option<String>,
    ) -> Result<Object<'env>> {
        if bytes.len() > PART_BYTES as usize {
            return Err(refused("a part of an answer is too large"));
        }
        let task = self.task()?;
        if let Some(content_type) = content_type {
            task.parts().1.set_content_type(&content_type).map_err(refused)?;
        }
        let outlet = Arc::clone(&self.outlet);
        let wait = lock(&outlet).part(self.task()?, &bytes);
        let (deferred, promise) = env.create_deferred::<bool, _>()?;
        // A thread of its own: the loop's few would wait for as many slow clients.
        std::thread::Builder::new()
            .name("vilya-part".into())
            .spawn(move || {
                let is_taken = wait.wait();
                deferred.resolve(move |_| Ok(is_taken));
            })
            .map_err(refused)?;
        Ok(promise)
    }

    /// Answers with an account of a failure, in JSON.
    #[napi]
    pub fn fail(&mut self, account: String) -> Result<()> {
        let task = self.task.take().ok_or_else(|| refused("this invocation is answered already"))?;
        lock(&self.outlet).raised(task, account.as_bytes());
        Ok(())
    }
}
