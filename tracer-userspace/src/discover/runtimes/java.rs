//! Java: the Spring application, the jar, the main class.

use super::{Naming, Program};
use crate::discover::procfs::Snapshot;
use crate::discover::words::{is_generic, program, split_version, stem};
use std::path::Path;

/// Options of the launcher that take their value as the next argument.
const WITH_VALUE: &[&str] = &[
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--add-exports",
    "--add-opens",
    "--add-reads",
    "--limit-modules",
    "--patch-module",
    "--enable-native-access",
    "--source",
    "-d",
    "--describe-module",
];

/// Main classes whose last word is not what people call the program.
const KNOWN: &[(&str, &str)] = &[
    ("org.apache.catalina.startup.Bootstrap", "tomcat"),
    ("org.apache.cassandra.service.CassandraDaemon", "cassandra"),
    ("org.apache.zookeeper.server.quorum.QuorumPeerMain", "zookeeper"),
    ("org.elasticsearch.bootstrap.Elasticsearch", "elasticsearch"),
    ("org.elasticsearch.server", "elasticsearch"),
    ("org.opensearch.bootstrap.OpenSearch", "opensearch"),
    ("kafka.Kafka", "kafka"),
    ("org.eclipse.jetty.start.Main", "jetty"),
    ("org.jboss.modules.Main", "wildfly"),
    ("org.apache.activemq.artemis.boot.Artemis", "artemis"),
];

/// Suffixes that builds append to a jar's name.
const SUFFIXES: &[&str] = &[
    "-all",
    "-exec",
    "-fat",
    "-shaded",
    "-runner",
    "-boot",
    "-jar-with-dependencies",
    "-uber",
];

pub fn named(process: &Snapshot) -> Naming {
    let args = process.args.get(1..).unwrap_or_default();
    let version = launched(process, args);
    match (spring(process, args), version) {
        (Some(name), found) => Program {
            name: name.to_owned(),
            version: found.and_then(|f| f.version),
        }
        .into(),
        (None, found) => found.into(),
    }
}

/// `spring.application.name`, by Spring's own order: argument, system property, environment.
fn spring<'a>(process: &'a Snapshot, args: &'a [String]) -> Option<&'a str> {
    args.iter()
        .find_map(|a| a.strip_prefix("--spring.application.name="))
        .or_else(|| {
            args.iter()
                .find_map(|a| a.strip_prefix("-Dspring.application.name="))
        })
        .or_else(|| process.environ.get("SPRING_APPLICATION_NAME"))
        .filter(|name| !name.is_empty())
}

fn launched(process: &Snapshot, args: &[String]) -> Option<Program> {
    let mut rest = args;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "-jar" => return tail.first().and_then(|jar| from_jar(process, jar)),
            "-m" | "--module" => {
                return tail
                    .first()
                    .map(|m| from_class(m.rsplit('/').next().unwrap_or(m), args));
            }
            option if WITH_VALUE.contains(&option) => rest = tail.get(1..).unwrap_or_default(),
            option if option.starts_with("--module=") => {
                let target = option.strip_prefix("--module=").unwrap_or_default();
                return Some(from_class(target.rsplit('/').next().unwrap_or(target), args));
            }
            option if option.starts_with(['-', '@']) => rest = tail,
            file if file.ends_with(".java") => {
                let name = program(&process.absolute(Path::new(file)), &[".java"])?;
                return Some(Program { name, version: None });
            }
            class => return Some(from_class(class, args)),
        }
    }
    None
}

fn from_jar(process: &Snapshot, jar: &str) -> Option<Program> {
    let mut bare = stem(jar, &[".jar", ".war"]);
    let strip = |text| {
        SUFFIXES
            .iter()
            .find_map(|s| str::strip_suffix(text, s))
            .unwrap_or(text)
    };
    bare = strip(bare);
    let (name, version) = split_version(bare);
    let name = if is_generic(name) {
        program(&process.absolute(Path::new(jar)), &[".jar", ".war"])?
    } else {
        strip(name).to_owned()
    };
    Some(Program {
        name,
        version: version.map(str::to_owned),
    })
}

/// `com.acme.shop.Main` is `shop`, `com.acme.OrderService` is `OrderService`.
fn from_class(class: &str, args: &[String]) -> Program {
    let name = KNOWN
        .iter()
        .find(|(known, _)| *known == class)
        .map(|(_, name)| *name);
    let spring_loader = class.starts_with("org.springframework.boot.loader.");
    let name = name.map(str::to_owned).or_else(|| {
        if spring_loader {
            // An unpacked Spring Boot image: the start class is in the manifest, the folder is all that we see.
            return None;
        }
        let mut parts = class.rsplit('.');
        let last = parts.next()?;
        let parent = parts.next();
        Some(
            if is_generic(last) {
                parent.unwrap_or(last)
            } else {
                last
            }
            .to_owned(),
        )
    });
    let _ = args;
    Program {
        name: name.unwrap_or_else(|| "java".to_owned()),
        version: None,
    }
}
