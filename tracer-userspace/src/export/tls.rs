//! Certificates from files, read at the start so that a mistake is told at once, and again when they change.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The paths that a section names.
pub(super) struct Paths<'a> {
    pub certificate: Option<&'a Path>,
    pub client_certificate: Option<&'a Path>,
    pub client_key: Option<&'a Path>,
}

impl Paths<'_> {
    /// All that are set.
    pub fn all(&self) -> Vec<PathBuf> {
        let all = [self.certificate, self.client_certificate, self.client_key];
        all.into_iter().flatten().map(Path::to_path_buf).collect()
    }
}

/// The contents (PEM) of the files that the configuration names.
#[derive(Default)]
pub(in crate::export) struct Files {
    /// Authorities to trust instead of the host's.
    pub authorities: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// Names the file and the setting.
    pub fn read(paths: &Paths<'_>) -> anyhow::Result<Self> {
        let authorities = paths
            .certificate
            .map(|path| read(path, "certificate", "CERTIFICATE"));
        let identity = match (paths.client_certificate, paths.client_key) {
            (Some(certificate), Some(key)) => Some((
                read(certificate, "client_certificate", "CERTIFICATE")?,
                read(key, "client_key", "PRIVATE KEY")?,
            )),
            (None, None) => None,
            (Some(_), None) => bail!(
                "client_certificate is set without client_key: set both (OTLP: OTEL_EXPORTER_OTLP_CLIENT_KEY)"
            ),
            (None, Some(_)) => bail!(
                "client_key is set without client_certificate: set both (OTLP: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE)"
            ),
        };
        Ok(Self {
            authorities: authorities.transpose()?,
            identity,
        })
    }
}

fn read(path: &Path, setting: &str, kind: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!(
            "cannot read {setting} `{}`: check the path and its permissions",
            path.display()
        )
    })?;
    if memchr::memmem::find(&bytes, format!("{kind}-----").as_bytes()).is_none() {
        bail!(
            "{setting} `{}` holds no PEM block of a {}: convert it to PEM",
            path.display(),
            kind.to_lowercase()
        );
    }
    Ok(bytes)
}
