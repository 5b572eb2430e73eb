//! A receiver of traces that shares no code with the exporter: OTLP over HTTP, decoded by the
//! protocol's own messages, kept span by span.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{
    Span as WireSpan, span::SpanKind, status::StatusCode as Code,
};
use prost::Message as _;
use prost::bytes::Buf;

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace, in hexadecimal.
    pub trace: String,
    /// The span, in hexadecimal.
    pub id: String,
    /// Its parent; none for a root.
    pub parent: Option<String>,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// `service.instance.id` of its resource.
    pub instance: String,
    /// `process.pid` of its resource.
    pub os_pid: u32,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    /// An attribute, as text.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Whether it is of a kind of service, such as `log`.
    #[must_use]
    pub fn is_at(&self, kind: &str) -> bool {
        let name = self.instance.split('@').next().unwrap_or_default();
        name.rsplit_once('-').is_some_and(|(of, _)| of == kind)
    }
}

/// One trace, by span id.
#[derive(Clone, Debug, Default)]
pub struct Trace(BTreeMap<String, Span>);

impl Trace {
    /// What there is of a trace among these spans.
    ///
    /// # Errors
    /// A span id comes twice.
    pub fn of(id: &str, spans: impl IntoIterator<Item = Span>) -> anyhow::Result<Trace> {
        let mut trace = Trace::default();
        for span in spans.into_iter().filter(|span| span.trace == id) {
            let before = trace.0.insert(span.id.clone(), span);
            ensure!(before.is_none(), "twice: {before:?}");
        }
        Ok(trace)
    }

    /// The root of a trace that has all parents.
    ///
    /// # Errors
    /// There is no root or more than one, or a parent is missing.
    pub fn root(&self) -> anyhow::Result<&Span> {
        let mut roots = self.spans().filter(|span| span.parent.is_none());
        let root = roots.next().context("the root has not come")?;
        ensure!(roots.next().is_none(), "several roots");
        for span in self.spans().filter(|span| span.id != root.id) {
            ensure!(self.parent(span).is_some(), "without its parent: {span:?}");
        }
        Ok(root)
    }

    /// Checks that each step from one service to another is a client's span above a server's. A
    /// storage applies what it has pulled from a log, later than the commit is answered: nobody
    /// calls, so nobody serves.
    ///
    /// # Errors
    /// The span that no call leads to.
    pub fn check_calls(&self) -> anyhow::Result<()> {
        for span in self.spans() {
            let Some(parent) = self.parent(span) else { continue };
            if parent.instance == span.instance {
                continue;
            }
            match span.kind {
                SpanKind::Consumer => ensure!(span.name == "apply", "{span:?}"),
                SpanKind::Server => ensure!(
                    parent.kind == SpanKind::Client && parent.name == span.name,
                    "{span:?} below {parent:?}"
                ),
                _ => bail!("an edge without a server: {span:?} below {parent:?}"),
            }
        }
        Ok(())
    }

    /// The services that took part, such as `log-1@node-2`.
    #[must_use]
    pub fn instances(&self) -> BTreeSet<&str> {
        self.spans().map(|span| span.instance.as_str()).collect()
    }

    /// Every span.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.0.values()
    }

    /// The spans of a name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans().filter(move |span| span.name == name)
    }

    /// The only span of a name.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn the(&self, name: &str) -> anyhow::Result<&Span> {
        let mut found = self.spans().filter(|span| span.name == name);
        match (found.next(), found.next()) {
            (Some(span), None) => Ok(span),
            (None, _) => bail!("no span {name}; there are {:?}", self.names()),
            (Some(_), Some(_)) => bail!("several spans {name}"),
        }
    }

    /// The names of its spans.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.spans().map(|span| span.name.as_str()).collect()
    }

    /// A span's parent, where it is in the trace.
    #[must_use]
    pub fn parent(&self, span: &Span) -> Option<&Span> {
        self.0.get(span.parent.as_ref()?)
    }

    /// Whether one span is somewhere above another.
    #[must_use]
    pub fn is_below(&self, span: &Span, above: &Span) -> bool {
        let mut current = span;
        while let Some(parent) = self.parent(current) {
            if parent.id == above.id {
                return true;
            }
            current = parent;
        }
        false
    }

    /// The spans somewhere below another.
    pub fn below<'a>(&'a self, above: &'a Span) -> impl Iterator<Item = &'a Span> {
        self.spans().filter(move |span| self.is_below(span, above))
    }
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    /// What could not be understood.
    bad: Vec<String>,
}

/// The receiver. Dropping it stops it.
pub struct Receiver {
    url: String,
    kept: Arc<Mutex<Kept>>,
    _runtime: tokio::runtime::Runtime,
}

impl Receiver {
    /// Starts one at a free port.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start() -> anyhow::Result<Receiver> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let kept = Arc::<Mutex<Kept>>::default();
        let app = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&kept));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Receiver { url, kept, _runtime: runtime })
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every span so far.
    ///
    /// # Errors
    /// Something arrived that is not OTLP.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(kept.bad.is_empty(), "not OTLP: {:?}", kept.bad);
        Ok(kept.spans.clone())
    }

    /// What has arrived of a trace.
    ///
    /// # Errors
    /// Something arrived that is not OTLP, or a span id twice.
    pub fn trace(&self, id: &str) -> anyhow::Result<Trace> {
        Trace::of(id, self.spans()?)
    }

    /// The trace of an epoch's recovery, once its root has arrived.
    ///
    /// # Errors
    /// It has not, or there are several.
    pub fn recovery(&self, epoch: u64) -> anyhow::Result<(Span, Trace)> {
        let epoch = epoch.to_string();
        let mut roots: Vec<Span> = self.spans()?;
        roots.retain(|span| {
            span.name == "recovery" && span.attribute("plinth.epoch") == Some(epoch.as_str())
        });
        ensure!(roots.len() <= 1, "several recoveries of epoch {epoch}: {roots:?}");
        let root = roots.pop().with_context(|| format!("no recovery of epoch {epoch}"))?;
        let trace = self.trace(&root.trace)?;
        Ok((root, trace))
    }
}

async fn receive(
    State(kept): State<Arc<Mutex<Kept>>>,
    body: Bytes,
) -> Result<Vec<u8>, (StatusCode, String)> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    match decode(body) {
        Ok(spans) => {
            kept.spans.extend(spans);
            Ok(ExportTraceServiceResponse::default().encode_to_vec())
        }
        Err(error) => {
            kept.bad.push(format!("{error:#}"));
            Err((StatusCode::BAD_REQUEST, format!("{error:#}")))
        }
    }
}

/// The spans of an export, as a request's body has it.
///
/// # Errors
/// It is not OTLP, or says nothing of who made them.
pub fn decode(body: impl Buf) -> anyhow::Result<Vec<Span>> {
    let request = ExportTraceServiceRequest::decode(body)?;
    let mut spans = Vec::new();
    for of_resource in &request.resource_spans {
        let resource = of_resource.resource.as_ref().context("spans without a resource")?;
        let resource = attributes(&resource.attributes);
        let about = |name: &str| resource.get(name).with_context(|| format!("no {name}"));
        let (instance, os_pid) = (about("service.instance.id")?, about("process.pid")?.parse()?);
        let wire = of_resource.scope_spans.iter().flat_map(|of_scope| &of_scope.spans);
        for span in wire {
            spans.push(of_wire(span, instance, os_pid)?);
        }
    }
    Ok(spans)
}

fn of_wire(span: &WireSpan, instance: &str, os_pid: u32) -> anyhow::Result<Span> {
    ensure!(span.trace_id.len() == 16 && span.span_id.len() == 8, "ids of {}", span.name);
    ensure!(span.end_time_unix_nano >= span.start_time_unix_nano, "{} ends first", span.name);
    let status = span.status.as_ref().filter(|status| status.code() == Code::Error);
    Ok(Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        name: span.name.clone(),
        kind: span.kind(),
        instance: instance.to_owned(),
        os_pid,
        attributes: attributes(&span.attributes),
        error: status.map(|status| status.message.clone()),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match &pair.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::BoolValue(yes) => Some(yes.to_string()),
        other => Some(format!("{other:?}")),
    };
    pairs.iter().filter_map(|pair| Some((pair.key.clone(), text(pair)?))).collect()
}
