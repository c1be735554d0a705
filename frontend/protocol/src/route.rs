//! Which operation a method and a path mean.
//!
//! Invariant: paths are compared as they were sent. Nothing is decoded, no dot segment is resolved and no slash is merged
//! or forgiven, so a filter in front of the worker and the worker itself cannot disagree about what a path means. A name
//! in a path has its one spelling ([`crate::name`]); an escaped one is refused.
//!
//! Does not know: whether the function exists, or what the operation does.

use crate::error::ErrorKind;
use crate::http::Method;
use crate::name::{self, NameError};

/// An operation, with its argument from the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `POST /fn/{name}`: body in, body out.
    Invoke {
        /// A valid function name.
        name: &'a str,
    },
    /// `PUT /v1/functions/{name}`: the body is a bundle.
    DeployFunction {
        /// A valid function name.
        name: &'a str,
    },
    /// `GET /v1/functions/{name}`.
    GetFunction {
        /// A valid function name.
        name: &'a str,
    },
    /// `DELETE /v1/functions/{name}`.
    DeleteFunction {
        /// A valid function name.
        name: &'a str,
    },
    /// `GET /v1/functions/{name}/logs`.
    FunctionLogs {
        /// A valid function name.
        name: &'a str,
    },
    /// `GET /v1/functions`.
    ListFunctions,
    /// `GET /v1/sandboxes`.
    ListSandboxes,
    /// `GET /v1/version`.
    Version,
    /// `GET /livez`: the process turns its loops.
    Livez,
    /// `GET /readyz`: it takes invocations.
    Readyz,
    /// `GET /metrics`.
    Metrics,
}

/// Why a method and a path mean no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing is at that path.
    NotFound,
    /// Something is, and takes other methods.
    MethodNotAllowed {
        /// Value of the `Allow` header that a 405 must carry (RFC 9110, section 15.5.6).
        allow: &'static str,
    },
    /// The path has a place for a function name, and what is there is not one.
    InvalidName(NameError),
}

impl NoRoute {
    /// The row of the error table.
    pub const fn kind(self) -> ErrorKind {
        match self {
            NoRoute::NotFound => ErrorKind::NotFound,
            NoRoute::MethodNotAllowed { .. } => ErrorKind::MethodNotAllowed,
            NoRoute::InvalidName(_) => ErrorKind::InvalidFunction,
        }
    }

    /// A message for the error body.
    pub const fn message(self) -> &'static str {
        match self {
            NoRoute::NotFound => "nothing is at this path",
            NoRoute::MethodNotAllowed { .. } => "this path does not take this method",
            NoRoute::InvalidName(error) => error.message(),
        }
    }
}

/// A path that exists, before the method is looked at.
enum Place<'a> {
    Function(&'a str),
    Record(&'a str),
    Logs(&'a str),
    Plain(Route<'static>),
}

/// Maps a method and an undecoded path (no query) to an operation.
///
/// `HEAD` means what `GET` means: the caller leaves the body out of the answer.
pub fn route(method: Method, path: &str) -> Result<Route<'_>, NoRoute> {
    match place(path).ok_or(NoRoute::NotFound)? {
        Place::Function(name) => match method {
            Method::Post => Ok(Route::Invoke { name: checked(name)? }),
            _ => Err(NoRoute::MethodNotAllowed { allow: "POST" }),
        },
        Place::Record(name) => match method {
            Method::Get | Method::Head => Ok(Route::GetFunction { name: checked(name)? }),
            Method::Put => Ok(Route::DeployFunction { name: checked(name)? }),
            Method::Delete => Ok(Route::DeleteFunction { name: checked(name)? }),
            _ => Err(NoRoute::MethodNotAllowed { allow: "GET, HEAD, PUT, DELETE" }),
        },
        Place::Logs(name) => match method {
            Method::Get | Method::Head => Ok(Route::FunctionLogs { name: checked(name)? }),
            _ => Err(NoRoute::MethodNotAllowed { allow: "GET, HEAD" }),
        },
        Place::Plain(route) => match method {
            Method::Get | Method::Head => Ok(route),
            _ => Err(NoRoute::MethodNotAllowed { allow: "GET, HEAD" }),
        },
    }
}

fn place(path: &str) -> Option<Place<'_>> {
    if let Some(name) = path.strip_prefix("/fn/") {
        return one_segment(name).map(Place::Function);
    }
    if let Some(rest) = path.strip_prefix("/v1/functions/") {
        return match rest.strip_suffix("/logs") {
            Some(name) => one_segment(name).map(Place::Logs),
            None => one_segment(rest).map(Place::Record),
        };
    }
    let plain = match path {
        "/v1/functions" => Route::ListFunctions,
        "/v1/sandboxes" => Route::ListSandboxes,
        "/v1/version" => Route::Version,
        "/livez" => Route::Livez,
        "/readyz" => Route::Readyz,
        "/metrics" => Route::Metrics,
        _ => return None,
    };
    Some(Place::Plain(plain))
}

fn one_segment(segment: &str) -> Option<&str> {
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

fn checked(name: &str) -> Result<&str, NoRoute> {
    match name::check(name) {
        Ok(()) => Ok(name),
        Err(error) => Err(NoRoute::InvalidName(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_path() {
        let name = "echo";
        let cases = [
            (Method::Post, "/fn/echo", Route::Invoke { name }),
            (Method::Put, "/v1/functions/echo", Route::DeployFunction { name }),
            (Method::Get, "/v1/functions/echo", Route::GetFunction { name }),
            (Method::Head, "/v1/functions/echo", Route::GetFunction { name }),
            (Method::Delete, "/v1/functions/echo", Route::DeleteFunction { name }),
            (Method::Get, "/v1/functions/echo/logs", Route::FunctionLogs { name }),
            (Method::Get, "/v1/functions", Route::ListFunctions),
            (Method::Get, "/v1/sandboxes", Route::ListSandboxes),
            (Method::Get, "/v1/version", Route::Version),
            (Method::Get, "/livez", Route::Livez),
            (Method::Head, "/readyz", Route::Readyz),
            (Method::Get, "/metrics", Route::Metrics),
            (Method::Get, "/v1/functions/logs", Route::GetFunction { name: "logs" }),
        ];
        for (method, path, expected) in cases {
            assert_eq!(route(method, path), Ok(expected), "{method:?} {path}");
        }
    }

    #[test]
    fn other_paths_are_not_found_whatever_the_method() {
        let paths = [
            "/",
            "*",
            "",
            "/fn",
            "/fn/",
            "/fn//",
            "/fn/a/",
            "/fn/a/b",
            "//fn/a",
            "/fn/../fn/a",
            "/FN/a",
            "/v1",
            "/v1/",
            "/v1/functions/",
            "/v1/functions//logs",
            "/v1/functions/a/logs/",
            "/v1/functions/a/b",
            "/livez/",
            "/%66n/a",
            "/./livez",
            "/v2/functions",
        ];
        for path in paths {
            for method in [Method::Get, Method::Post, Method::Put, Method::Delete, Method::Other] {
                assert_eq!(route(method, path), Err(NoRoute::NotFound), "{method:?} {path}");
            }
        }
    }

    #[test]
    fn a_known_path_names_the_methods_it_takes() {
        let cases = [
            (Method::Get, "/fn/a", "POST"),
            (Method::Options, "/fn/a", "POST"),
            (Method::Other, "/fn/BAD", "POST"),
            (Method::Post, "/v1/functions/a", "GET, HEAD, PUT, DELETE"),
            (Method::Patch, "/v1/functions/a", "GET, HEAD, PUT, DELETE"),
            (Method::Delete, "/v1/functions/a/logs", "GET, HEAD"),
            (Method::Post, "/livez", "GET, HEAD"),
            (Method::Put, "/v1/functions", "GET, HEAD"),
        ];
        for (method, path, allow) in cases {
            let no_route = route(method, path).expect_err("the method is not taken");
            assert_eq!(no_route, NoRoute::MethodNotAllowed { allow }, "{method:?} {path}");
            assert_eq!(no_route.kind().status(), 405);
        }
    }

    #[test]
    fn names_have_one_spelling() {
        for path in ["/fn/Echo", "/fn/..", "/fn/.", "/fn/%65cho", "/fn/a%2Fb", "/fn/a;b", "/fn/-a"] {
            let no_route = route(Method::Post, path).expect_err("not a function name");
            assert!(matches!(no_route, NoRoute::InvalidName(_)), "{path}: {no_route:?}");
            assert_eq!(no_route.kind().status(), 400);
        }
    }
}
