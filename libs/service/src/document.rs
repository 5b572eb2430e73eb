//! A service's OpenAPI document: what the routes declare, what the shell adds to each of them, and
//! its one text, which is both served and committed.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use http::StatusCode;
use plinth_api::{ErrorCode, HEADER_SECRET, Problem};
use utoipa::PartialSchema as _;
use utoipa::ToSchema as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{AdditionalProperties, Object, SchemaType};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, Schema, Type};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::caller::Access;
use crate::failure::PROBLEM_JSON;
use crate::schemas;

/// The refusals of an operation that belongs to an epoch.
pub const FENCED: &[ErrorCode] =
    &[ErrorCode::StaleEpoch, ErrorCode::Superseded, ErrorCode::NotReady];
/// The refusals of an operation that the leader of the coordinators serves.
pub const LED: &[ErrorCode] =
    &[ErrorCode::NoQuorum, ErrorCode::NotReady, ErrorCode::PeerUnavailable];
/// The refusals of an operation that needs the disk.
pub const STORED: &[ErrorCode] = &[ErrorCode::DiskFull, ErrorCode::Damaged];

/// What the shell may answer in place of any handler.
const SHELL: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::Unauthenticated,
    ErrorCode::WrongCluster,
    ErrorCode::WrongIncarnation,
    ErrorCode::DeadlineExceeded,
];

/// The `securityScheme` of a service.
const CLUSTER_SECRET: &str = "cluster_secret";
/// The `securityScheme` of the administrator and of users.
const BEARER: &str = "bearer";
/// Who may call an operation.
const CALLER: &str = "x-plinth-caller";
/// The problem codes that a status stands for.
const CODES: &str = "x-plinth-codes";

/// Declares the problems that operations answer with.
pub trait Fails {
    /// Every operation of these routes may answer with a problem of these codes, beside those that
    /// the shell may answer anywhere: bad input, a wrong caller, another process or cluster, a
    /// deadline.
    #[must_use]
    fn fails(self, codes: &[ErrorCode]) -> Self;
}

impl<S: Clone + Send + Sync + 'static> Fails for UtoipaMethodRouter<S> {
    fn fails(mut self, codes: &[ErrorCode]) -> Self {
        for operation in self.1.paths.values_mut().flat_map(operations) {
            declare(operation, codes);
        }
        self
    }
}

pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// Adds problem codes to an operation's responses.
fn declare(operation: &mut Operation, codes: &[ErrorCode]) {
    for code in codes {
        let status = code.status();
        let response = operation
            .responses
            .responses
            .entry(status.as_str().to_owned())
            .or_insert_with(|| RefOr::T(Response::default()));
        let RefOr::T(response) = response else { continue };
        if response.content.is_empty() {
            let content =
                ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name())));
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content.build()));
        }
        let extensions = response.extensions.get_or_insert_default();
        let known =
            extensions.get(CODES).and_then(serde_json::Value::as_array).into_iter().flatten();
        let mut all: BTreeSet<String> =
            known.filter_map(|code| Some(code.as_str()?.to_owned())).collect();
        all.insert(code.as_str().to_owned());
        response.description =
            all.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        extensions.insert(CODES.to_owned(), all.into_iter().collect());
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let seconds = HeaderBuilder::new()
                .schema(Some(Object::with_type(SchemaType::Type(Type::Integer))))
                .description(Some(
                    "Seconds to wait before the next attempt, where one makes sense.",
                ));
            response.headers.insert("Retry-After".to_owned(), RefOr::T(seconds.build()));
        }
    }
}

/// Adds to an operation what follows from who may call it and from what it takes.
pub(crate) fn complete(operation: &mut Operation, access: Access) {
    operation.extensions.get_or_insert_default().insert(CALLER.to_owned(), access.as_str().into());
    declare(operation, SHELL);
    let by = |scheme: &str| SecurityRequirement::new(scheme, Vec::<String>::new());
    let nothing = SecurityRequirement::default;
    operation.security = match access {
        Access::Anyone => None,
        Access::User | Access::Observer => Some(vec![nothing(), by(BEARER), by(CLUSTER_SECRET)]),
        Access::Administrator => Some(vec![by(BEARER), by(CLUSTER_SECRET)]),
        Access::Service => Some(vec![by(CLUSTER_SECRET)]),
    };
    if matches!(access, Access::Observer | Access::Administrator | Access::Service) {
        declare(operation, &[ErrorCode::Forbidden]);
    }
    let Some(RefOr::T(body)) = &operation.request_body else { return };
    let is_json = body.content.contains_key("application/json");
    declare(operation, &[ErrorCode::LimitExceeded]);
    if !matches!(access, Access::Service) {
        // Users' bodies share what room there is.
        declare(operation, &[ErrorCode::Overloaded]);
    }
    if is_json {
        declare(operation, &[ErrorCode::UnsupportedMediaType]);
    }
}

/// Makes a whole of the routes' parts.
pub(crate) fn finish(mut openapi: OpenApi) -> OpenApi {
    // The router's mark for "the rest of the path" is not OpenAPI's.
    let paths = std::mem::take(&mut openapi.paths.paths);
    openapi.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    let components = openapi.components.get_or_insert_default();
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas.push((Problem::name().into_owned(), Problem::schema()));
    for (name, schema) in schemas {
        components.schemas.entry(name).or_insert(schema);
    }
    let secret = ApiKeyValue::with_description(HEADER_SECRET, "Proves a service of the cluster.");
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("Proves the administrator."));
    components.add_security_scheme(CLUSTER_SECRET, SecurityScheme::ApiKey(ApiKey::Header(secret)));
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let mut openapi = schemas::name(openapi);
    let mut strict = BTreeSet::new();
    for operation in openapi.paths.paths.values_mut().flat_map(operations) {
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && response.description.is_empty()
            {
                let status = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
                let reason = status.and_then(|status| status.canonical_reason());
                reason.unwrap_or_default().clone_into(&mut response.description);
            }
        }
        if caller_of(operation) != Some(Access::Service.as_str())
            && let Some(RefOr::T(body)) = &operation.request_body
        {
            let schemas = body.content.values().filter_map(|content| match content {
                RefOr::T(content) => content.schema.as_ref(),
                RefOr::Ref(_) => None,
            });
            schemas.for_each(|schema| references(schema, &mut strict));
        }
    }
    close(&mut openapi, strict);
    openapi
}

fn caller_of(operation: &Operation) -> Option<&str> {
    operation.extensions.as_ref()?.get(CALLER)?.as_str()
}

/// The names of the schemas that a schema refers to.
fn references(schema: &RefOr<Schema>, names: &mut BTreeSet<String>) {
    // By its text, since a schema has many places for another one.
    let Ok(text) = serde_json::to_value(schema) else { return };
    let mut left = vec![&text];
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Object(map) => {
                let name = map.get("$ref").and_then(serde_json::Value::as_str);
                let name = name.and_then(|name| name.strip_prefix("#/components/schemas/"));
                names.extend(name.map(str::to_owned));
                left.extend(map.values());
            }
            serde_json::Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
}

/// Says of every structure in a body that people send that it has no further fields: such are
/// refused, see [`crate::Json`].
fn close(openapi: &mut OpenApi, mut waiting: BTreeSet<String>) {
    let Some(components) = &mut openapi.components else { return };
    let mut done = BTreeSet::new();
    while let Some(name) = waiting.pop_first() {
        let Some(schema) = components.schemas.get_mut(&name) else { continue };
        if !done.insert(name) {
            continue;
        }
        references(schema, &mut waiting);
        if let RefOr::T(Schema::Object(object)) = schema
            && object.schema_type == SchemaType::Type(Type::Object)
            && object.additional_properties.is_none()
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// The document as a service serves it and as it is committed.
#[must_use]
pub fn document_text(openapi: &OpenApi) -> String {
    // A document is made of texts and maps with text keys, so it can always be written.
    openapi.to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

/// A document that is made when it is first asked for: that takes longer than everything else that a
/// service does at its start.
pub(crate) struct LazyDocument {
    parts: OpenApi,
    text: OnceLock<String>,
}

impl LazyDocument {
    /// The document of these parts.
    pub(crate) fn new(parts: OpenApi) -> LazyDocument {
        LazyDocument { parts, text: OnceLock::new() }
    }

    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| document_text(&finish(self.parts.clone())))
    }
}

/// The statuses that a document names for an operation, by method and router's path.
pub(crate) struct Statuses(std::collections::BTreeMap<(String, String), BTreeSet<String>>);

impl Statuses {
    pub(crate) fn of(openapi: &OpenApi) -> Statuses {
        let mut all = std::collections::BTreeMap::new();
        for (path, item) in &openapi.paths.paths {
            let PathItem { get, put, post, delete, patch, .. } = item;
            for (method, operation) in
                [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)]
            {
                if let Some(operation) = operation {
                    let statuses = operation.responses.responses.keys().cloned().collect();
                    all.insert((method.to_owned(), path.replace("{*", "{")), statuses);
                }
            }
        }
        Statuses(all)
    }

    /// Whether the operation is there and does not name the status.
    pub(crate) fn lack(&self, method: &str, route: &str, status: StatusCode) -> bool {
        let method = if method == "HEAD" { "GET" } else { method };
        let key = (method.to_owned(), route.replace("{*", "{"));
        self.0.get(&key).is_some_and(|named| !named.contains(status.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_one_status_share_a_response() {
        let mut operation = Operation::new();
        declare(&mut operation, &[ErrorCode::StaleEpoch, ErrorCode::NotReady]);
        declare(&mut operation, &[ErrorCode::Conflict, ErrorCode::StaleEpoch]);
        let json = serde_json::to_value(&operation.responses).unwrap();
        assert_eq!(json["409"]["description"], "`conflict`, `stale_epoch`");
        assert_eq!(json["409"]["x-plinth-codes"], serde_json::json!(["conflict", "stale_epoch"]));
        let schema = &json["503"]["content"]["application/problem+json"]["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/Problem");
        assert!(json["503"]["headers"]["Retry-After"].is_object());
        assert!(json["409"]["headers"].is_null());
    }
}
