//! actix-web: workers of a thread each, on a tokio of their own.

use std::future::Future;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::{App, HttpResponse, HttpServer, web};

use mesh_rust::{Done, setting};

use crate::styles;

/// A route whose handler runs `style`.
fn style<T, B, F>(app: App<T>, name: &str, style: impl Fn(String) -> F + Copy + 'static) -> App<T>
where
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<B>,
            Error = actix_web::Error,
            InitError = (),
        >,
    B: MessageBody,
    F: Future<Output = Done> + 'static,
{
    app.route(
        &format!("/{name}/{{marker}}"),
        web::get().to(move |marker: web::Path<String>| async move {
            match style(marker.into_inner()).await {
                Ok(()) => HttpResponse::Ok().body("ok"),
                Err(error) => HttpResponse::BadGateway().body(error),
            }
        }),
    )
}

pub fn serve() {
    let server = HttpServer::new(|| styles!(App::new(), style))
        .workers(4)
        .backlog(512)
        .bind(format!("0.0.0.0:{}", setting("PORT")))
        .expect("the port");
    actix_web::rt::System::new()
        .block_on(server.run())
        .expect("a server");
}
