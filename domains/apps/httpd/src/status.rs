//! Status codes that this server sends (RFC 9110, 15), and the short pages that go with those that need one.

/// A status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// 200
    Ok,
    /// 204
    NoContent,
    /// 206
    PartialContent,
    /// 301
    MovedPermanently,
    /// 304
    NotModified,
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 409
    Conflict,
    /// 411
    LengthRequired,
    /// 412
    PreconditionFailed,
    /// 413
    ContentTooLarge,
    /// 414
    UriTooLong,
    /// 416
    RangeNotSatisfiable,
    /// 417
    ExpectationFailed,
    /// 422
    UnprocessableContent,
    /// 431
    FieldsTooLarge,
    /// 501
    NotImplemented,
    /// 503
    ServiceUnavailable,
    /// 505
    VersionNotSupported,
}

macro_rules! table {
    ($(($status:ident, $code:literal, $reason:literal)),* $(,)?) => {
        impl Status {
            /// Every status, in the order of their codes.
            pub const ALL: &[Status] = &[$(Status::$status),*];

            /// The three digits.
            pub const fn code(self) -> u16 {
                match self { $(Status::$status => $code),* }
            }

            /// The status line with its line end.
            pub const fn line(self) -> &'static str {
                match self { $(Status::$status => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n")),* }
            }

            /// A page for people that says no more than the status.
            pub const fn page(self) -> &'static str {
                match self {
                    $(Status::$status => concat!(
                        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>", $code, " ", $reason,
                        "</title>\n<h1>", $reason, "</h1>\n</html>\n",
                    )),*
                }
            }
        }
    };
}

table![
    (Ok, 200, "OK"),
    (NoContent, 204, "No Content"),
    (PartialContent, 206, "Partial Content"),
    (MovedPermanently, 301, "Moved Permanently"),
    (NotModified, 304, "Not Modified"),
    (BadRequest, 400, "Bad Request"),
    (Unauthorized, 401, "Unauthorized"),
    (Forbidden, 403, "Forbidden"),
    (NotFound, 404, "Not Found"),
    (MethodNotAllowed, 405, "Method Not Allowed"),
    (RequestTimeout, 408, "Request Timeout"),
    (Conflict, 409, "Conflict"),
    (LengthRequired, 411, "Length Required"),
    (PreconditionFailed, 412, "Precondition Failed"),
    (ContentTooLarge, 413, "Content Too Large"),
    (UriTooLong, 414, "URI Too Long"),
    (RangeNotSatisfiable, 416, "Range Not Satisfiable"),
    (ExpectationFailed, 417, "Expectation Failed"),
    (UnprocessableContent, 422, "Unprocessable Content"),
    (FieldsTooLarge, 431, "Request Header Fields Too Large"),
    (NotImplemented, 501, "Not Implemented"),
    (ServiceUnavailable, 503, "Service Unavailable"),
    (VersionNotSupported, 505, "HTTP Version Not Supported"),
];
