//! A service's routes. None can be added without saying who may call it.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use http::Uri;
use plinth_api::ErrorCode;
use plinth_telemetry::MetricError;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::caller::{Access, StateIsOpen, gate};
use crate::document::{self, LazyDocument, Statuses};
use crate::shell::{Shell, surround};
use crate::{BODY_LIMIT, Context, Failure, docs, health};

/// Routes with their documents. `S` is the state that their handlers still lack.
pub struct Routes<S = ()> {
    router: OpenApiRouter<S>,
    browsable: bool,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Routes::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes.
    #[must_use]
    pub fn new() -> Self {
        let info = InfoBuilder::new().title("Plinth").version(env!("CARGO_PKG_VERSION")).build();
        let openapi = OpenApiBuilder::new().info(info).build();
        Routes { router: OpenApiRouter::with_openapi(openapi), browsable: false }
    }

    /// Adds a page at `/docs` that shows the document to people.
    #[must_use]
    pub fn browsable(mut self) -> Self {
        self.browsable = true;
        self
    }

    /// Gives the OpenAPI document a title and a description.
    #[must_use]
    pub fn describe(mut self, title: &str, description: &str) -> Self {
        let info = &mut self.router.get_openapi_mut().info;
        title.clone_into(&mut info.title);
        info.description = Some(description.to_owned());
        self
    }

    /// Changes the document where it can't be told from the routes.
    #[must_use]
    pub fn document(mut self, change: impl FnOnce(&mut OpenApi)) -> Self {
        change(self.router.get_openapi_mut());
        self
    }

    /// Adds routes that need no proof.
    #[must_use]
    pub fn anyone(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Access::Anyone, routes)
    }

    /// Adds routes for users. Anonymous ones are let in: nothing issues users' tokens yet.
    #[must_use]
    pub fn user(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Access::User, routes)
    }

    /// Adds routes that read the cluster's state: see [`StateReads`](crate::StateReads).
    #[must_use]
    pub fn observer(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Access::Observer, routes)
    }

    /// Adds routes for the administrator, and for services that pass on what he asked them.
    #[must_use]
    pub fn administrator(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Access::Administrator, routes)
    }

    /// Adds routes for services of the cluster.
    #[must_use]
    pub fn service(self, routes: UtoipaMethodRouter<S>) -> Self {
        self.add(Access::Service, routes)
    }

    fn add(self, access: Access, routes: UtoipaMethodRouter<S>) -> Self {
        let (schemas, mut paths, methods) = routes;
        for operation in paths.paths.values_mut().flat_map(document::operations) {
            document::complete(operation, access);
        }
        let methods = methods.route_layer(from_fn_with_state(access, gate));
        let router = self.router.routes((schemas, paths, methods));
        Routes { router, browsable: self.browsable }
    }

    /// Adds all routes of another set.
    #[must_use]
    pub fn merge(self, other: Routes<S>) -> Self {
        let browsable = self.browsable || other.browsable;
        Routes { router: self.router.merge(other.router), browsable }
    }

    /// Gives the handlers their state.
    #[must_use]
    pub fn with_state(self, state: S) -> Routes<()> {
        Routes { router: self.router.with_state(state), browsable: self.browsable }
    }

    /// The OpenAPI document of these routes and of those that every service has.
    #[must_use]
    pub fn openapi(&self) -> OpenApi {
        document::finish(self.parts())
    }

    /// The parts of the document: it is whole once it is finished.
    fn parts(&self) -> OpenApi {
        let mut openapi = self.router.get_openapi().clone();
        openapi.merge(health::routes().router.into_openapi());
        if self.browsable {
            openapi.merge(docs::routes().router.into_openapi());
        }
        openapi
    }
}

impl Routes<()> {
    /// The router that serves: these routes, every service's, and the shell around them.
    pub(crate) fn serve(self, context: Context, state: StateIsOpen) -> Result<Router, MetricError> {
        let parts = self.parts();
        let shell = Shell::new(context.clone(), Statuses::of(&parts), state)?;
        let common = health::Common::new(context, LazyDocument::new(parts));
        let browsable = self.browsable;
        let mut routes = self.merge(health::routes().with_state(common));
        if browsable {
            routes = routes.merge(docs::routes());
        }
        let (router, _) = routes.router.split_for_parts();
        Ok(router
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(from_fn_with_state(shell, surround)))
    }
}

async fn not_found(uri: Uri) -> Failure {
    let detail = format!("there is no {}: /openapi.json lists what there is", uri.path());
    Failure::new(ErrorCode::NotFound, detail)
}

async fn method_not_allowed(method: http::Method, uri: Uri) -> Failure {
    let detail =
        format!("{} does not take {method}: the Allow header lists what it takes", uri.path());
    Failure::new(ErrorCode::MethodNotAllowed, detail)
}
