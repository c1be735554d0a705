//! The runtime of functions written in C: `include/vilya.h` over the runtime for Rust, and the shapes of C.
//!
//! Invariant: the declarations here are those of the header, name by name. It knows no rings: what is served, and how, is
//! the business of `vilya-runtime`.
#![allow(unsafe_code)]

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use vilya_runtime::{Failure, Request, Response};

/// `vilya_request`.
pub struct VilyaRequest<'a, 'b> {
    request: &'a Request<'b>,
    // Copies that end with a NUL, made when they are asked for.
    id: OnceCell<Option<CString>>,
    content_type: OnceCell<Option<CString>>,
    trace_parent: OnceCell<Option<CString>>,
}

/// `vilya_response`.
pub struct VilyaResponse<'a, 'b> {
    response: &'a mut Response<'b>,
    raised: Option<Failure>,
}

/// `vilya_handler`.
pub type VilyaHandler =
    unsafe extern "C" fn(*const VilyaRequest<'_, '_>, *mut VilyaResponse<'_, '_>, *mut c_void) -> c_int;

/// A handler and what it is called with.
struct Function {
    handler: VilyaHandler,
    context: *mut c_void,
}

// SAFETY: the header says that the handler is called from several threads with this context, which it alone uses.
unsafe impl Sync for Function {}

impl Function {
    fn call(&self, request: &Request<'_>, response: &mut Response<'_>) -> Result<(), Failure> {
        let request =
            VilyaRequest { request, id: OnceCell::new(), content_type: OnceCell::new(), trace_parent: OnceCell::new() };
        let mut response = VilyaResponse { response, raised: None };
        // SAFETY: both live until the handler has returned, and the header says what it may do with them.
        let code = unsafe { (self.handler)(&raw const request, &raw mut response, self.context) };
        // SAFETY: NULL means every stream. What a handler printed must be out before the answer is.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        if code == 0 {
            return Ok(());
        }
        let unnamed = || Failure::new("Error".to_owned(), format!("the handler returned {code}"));
        Err(response.raised.unwrap_or_else(unnamed))
    }
}

/// Serves until the worker says stop.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_run(handler: Option<VilyaHandler>, context: *mut c_void) -> c_int {
    let Some(handler) = handler else {
        eprintln!("vilya_run: the handler is NULL: give it a function");
        return 1;
    };
    let function = Function { handler, context };
    let function = &function;
    match vilya_runtime::try_run_named(|request, response| function.call(request, response)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("vilya_run: {error}");
            1
        }
    }
}

/// The request behind a pointer of the header.
///
/// # Safety
/// It is the one that a handler was called with, and the handler has not returned.
unsafe fn request<'a, 'b, 'c>(request: *const VilyaRequest<'b, 'c>) -> &'a VilyaRequest<'b, 'c> {
    // SAFETY: the caller's promise.
    unsafe { &*request }
}

/// The response behind a pointer of the header.
///
/// # Safety
/// It is the one that a handler was called with, the handler has not returned, and no other thread uses it.
unsafe fn response<'a, 'b, 'c>(response: *mut VilyaResponse<'b, 'c>) -> &'a mut VilyaResponse<'b, 'c> {
    // SAFETY: the caller's promise.
    unsafe { &mut *response }
}

/// A copy of `text` that ends with a NUL, or NULL for none.
fn terminated(place: &OnceCell<Option<CString>>, text: Option<&str>) -> *const c_char {
    let copy = place.get_or_init(|| text.and_then(|text| CString::new(text).ok()));
    copy.as_ref().map_or(std::ptr::null(), |copy| copy.as_ptr())
}

/// The request's bytes.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_payload(of: *const VilyaRequest<'_, '_>, bytes: *mut usize) -> *const c_void {
    // SAFETY: the header's promise, for both pointers.
    let payload = unsafe {
        let payload = request(of).request.payload();
        bytes.write(payload.len());
        payload
    };
    payload.as_ptr().cast()
}

/// The request's id.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_id(of: *const VilyaRequest<'_, '_>) -> *const c_char {
    // SAFETY: the header's promise.
    let of = unsafe { request(of) };
    terminated(&of.id, Some(of.request.id()))
}

/// The client's content type.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_content_type(of: *const VilyaRequest<'_, '_>) -> *const c_char {
    // SAFETY: the header's promise.
    let of = unsafe { request(of) };
    terminated(&of.content_type, of.request.content_type())
}

/// The client's `traceparent`.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_trace_parent(of: *const VilyaRequest<'_, '_>) -> *const c_char {
    // SAFETY: the header's promise.
    let of = unsafe { request(of) };
    terminated(&of.trace_parent, of.request.trace_parent())
}

/// When the worker received it.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_received_unix_ms(of: *const VilyaRequest<'_, '_>) -> u64 {
    // SAFETY: the header's promise.
    unsafe { request(of) }.request.received_unix_ms()
}

/// When the worker gives it up.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_deadline_ns(of: *const VilyaRequest<'_, '_>) -> u64 {
    // SAFETY: the header's promise.
    unsafe { request(of) }.request.deadline_ns()
}

/// The time left.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_remaining_ns(of: *const VilyaRequest<'_, '_>) -> u64 {
    // SAFETY: the header's promise.
    let left = unsafe { request(of) }.request.remaining();
    u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether nobody waits.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_cancelled(of: *const VilyaRequest<'_, '_>) -> bool {
    // SAFETY: the header's promise.
    unsafe { request(of) }.request.cancelled()
}

/// Room for the response.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_reserve(of: *mut VilyaResponse<'_, '_>, bytes: usize) -> *mut c_void {
    // SAFETY: the header's promise.
    let of = unsafe { response(of) };
    of.response.reserve(bytes).map_or(std::ptr::null_mut(), |room| room.as_mut_ptr().cast())
}

/// Appends.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_write(of: *mut VilyaResponse<'_, '_>, data: *const c_void, bytes: usize) -> c_int {
    if bytes == 0 {
        return 0;
    }
    // SAFETY: the header's promise: `data` has this many bytes.
    let (of, data) = unsafe { (response(of), std::slice::from_raw_parts(data.cast::<u8>(), bytes)) };
    if of.response.write(data).is_ok() { 0 } else { -1 }
}

/// Sends what there is so far.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_send_part(of: *mut VilyaResponse<'_, '_>) -> c_int {
    // SAFETY: the header's promise.
    let of = unsafe { response(of) };
    if of.response.send_part().is_ok() { 0 } else { -1 }
}

/// Shortens.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_truncate(of: *mut VilyaResponse<'_, '_>, bytes: usize) {
    // SAFETY: the header's promise.
    unsafe { response(of) }.response.truncate(bytes);
}

/// The most a response may have.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_limit(of: *const VilyaResponse<'_, '_>) -> usize {
    // SAFETY: the header's promise.
    unsafe { &*of }.response.limit()
}

/// Names the content type.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_set_content_type(of: *mut VilyaResponse<'_, '_>, content_type: *const c_char) -> c_int {
    // SAFETY: the header's promise: the text ends with a NUL.
    let (of, content_type) = unsafe { (response(of), CStr::from_ptr(content_type)) };
    let set = content_type.to_str().is_ok_and(|text| of.response.set_content_type(text).is_ok());
    if set { 0 } else { -1 }
}

/// Says why the handler fails.
///
/// # Safety
/// As the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vilya_raise(
    of: *mut VilyaResponse<'_, '_>,
    error_type: *const c_char,
    message: *const c_char,
) -> c_int {
    // SAFETY: the header's promise: both texts end with a NUL.
    let (of, error_type, message) = unsafe { (response(of), CStr::from_ptr(error_type), CStr::from_ptr(message)) };
    let owned = |text: &CStr| text.to_string_lossy().into_owned();
    of.raised = Some(Failure::new(owned(error_type), owned(message)));
    1
}
