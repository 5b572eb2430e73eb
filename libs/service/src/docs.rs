//! The page at `/docs`, which shows a service's OpenAPI document to people. Everything it needs is in
//! the executable.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderValue, header};
use plinth_api::ErrorCode;
use utoipa_axum::routes;
use utoipa_swagger_ui::Config;

use crate::{Fails as _, Failure, Routes};

/// Only what this page brings along may run in it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
);

static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(Config::from("/openapi.json").try_it_out_enabled(true).display_operation_id(true))
});

/// The routes of the page. Its files lie below `/docs/`.
pub(crate) fn routes() -> Routes {
    Routes::new().anyone(routes!(docs)).anyone(routes!(file).fails(&[ErrorCode::NotFound]))
}

/// A page to browse this document with.
#[utoipa::path(get, path = "/docs", tag = "process",
    responses((status = 303, description = "The page is at `/docs/index.html`", headers(("location" = String, description = "Where the page is")))))]
async fn docs() -> Redirect {
    Redirect::to("/docs/index.html")
}

/// A file of that page.
#[utoipa::path(get, path = "/docs/{file}", tag = "process",
    params(("file" = String, Path, description = "Such as index.html")),
    responses((status = 200, description = "The file", content((Vec<u8> = "text/html"), (Vec<u8> = "text/css"), (Vec<u8> = "text/javascript"), (Vec<u8> = "image/png"), (Vec<u8> = "application/json")))))]
async fn file(Path(name): Path<String>) -> Result<Response, Failure> {
    let found = utoipa_swagger_ui::serve(&name, Arc::clone(&PAGE))
        .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    let Some(file) = found else {
        let detail = format!("there is no {name:?}: the page is /docs/index.html");
        return Err(Failure::new(ErrorCode::NotFound, detail));
    };
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::try_from(file.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    Ok(response)
}
