//! The services that series belong to.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{Nanos, Resource, Service};

/// Services told apart; the series of further ones are counted under the tracer itself.
const MAX_SERVICES: usize = 4_096;

/// Number of a service.
pub type ServiceId = u32;
/// Stands for the tracer itself, and for services beyond the bound.
pub const NOBODY: ServiceId = u32::MAX;

/// One service.
pub struct Entry {
    /// Who.
    pub service: Arc<Service>,
    /// `service.name`.
    pub name: Arc<str>,
    /// Series that it has now.
    pub series: usize,
    /// When its process was found to have ended.
    pub ended: Option<Nanos>,
    /// When it last had an exchange.
    pub last_seen: Nanos,
    /// It stands for all instances that are not told apart.
    is_together: bool,
}

/// All services, by the address of what describes them and by their identity: two descriptions of one service must not become two
/// series with the same attributes.
#[derive(Default)]
pub struct Services {
    entries: Vec<Option<Entry>>,
    free: Vec<ServiceId>,
    by_address: HashMap<usize, (ServiceId, Arc<Service>)>,
    by_identity: HashMap<Box<str>, ServiceId>,
    /// Instances of a namespace and name that are told apart.
    instances: HashMap<Box<str>, usize>,
    max_instances: usize,
}

impl Services {
    /// None yet; of each name so many instances are told apart.
    pub fn new(max_instances: usize) -> Self {
        Self {
            max_instances: max_instances.max(1),
            ..Self::default()
        }
    }

    /// The number of a service.
    pub fn intern(&mut self, service: &Arc<Service>, now: Nanos) -> ServiceId {
        if let Some(&(id, _)) = self.by_address.get(&(Arc::as_ptr(service) as usize)) {
            return id;
        }
        let (name, instance) = identity(service);
        let identity = format!("{name}\0{instance}").into_boxed_str();
        let id = match self.by_identity.get(&identity) {
            Some(&id) => id,
            None => {
                let instances = self.instances.get(&name).copied().unwrap_or(0);
                if instances < self.max_instances {
                    let added = self.add(identity, Arc::clone(service), false, now);
                    *self.instances.entry(name).or_default() += usize::from(added != NOBODY);
                    added
                } else {
                    let identity = format!("{name}\0\0").into_boxed_str();
                    match self.by_identity.get(&identity) {
                        Some(&id) => id,
                        None => self.add(identity, Arc::new(together(service)), true, now),
                    }
                }
            }
        };
        if id == NOBODY {
            return id;
        }
        if self.by_address.len() >= 2 * MAX_SERVICES {
            // Descriptions that were replaced; those in use come back.
            self.by_address.clear();
        }
        self.by_address
            .insert(Arc::as_ptr(service) as usize, (id, Arc::clone(service)));
        id
    }

    fn add(&mut self, identity: Box<str>, service: Arc<Service>, is_together: bool, now: Nanos) -> ServiceId {
        if self.by_identity.len() >= MAX_SERVICES {
            return NOBODY;
        }
        let entry = Entry {
            name: (&*service.name).into(),
            service,
            series: 0,
            // No process of its own will end: it goes once nothing was counted for a while.
            ended: is_together.then_some(now),
            last_seen: now,
            is_together,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as ServiceId - 1
        });
        if let Some(place) = self.entries.get_mut(id as usize) {
            *place = Some(entry);
        }
        self.by_identity.insert(identity, id);
        id
    }

    /// One service.
    pub fn get(&self, id: ServiceId) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    /// One service.
    pub fn get_mut(&mut self, id: ServiceId) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)?.as_mut()
    }

    /// Whose series these are.
    pub fn of(&self, id: ServiceId) -> Option<Arc<Service>> {
        self.get(id).map(|entry| Arc::clone(&entry.service))
    }

    /// Whether there is a service of that name.
    pub fn has_name(&self, name: &str) -> bool {
        self.entries.iter().flatten().any(|entry| *entry.name == *name)
    }

    /// These processes have ended.
    pub fn ended(&mut self, tgids: &[u32], now: Nanos) {
        for entry in self.entries.iter_mut().flatten() {
            if entry.ended.is_none() && tgids.contains(&entry.service.tgid) {
                entry.ended = Some(now);
            }
        }
    }

    /// Forgets services that ended and have not been seen since `before`; returns them.
    pub fn expire(&mut self, before: Nanos) -> Vec<ServiceId> {
        let mut gone = Vec::new();
        for (id, place) in self.entries.iter_mut().enumerate() {
            let is_over =
                |entry: &Entry| entry.ended.is_some_and(|ended| ended < before) && entry.last_seen < before;
            if let Some(entry) = place.take_if(|entry| is_over(entry)) {
                gone.push(id as ServiceId);
                let (name, _) = identity(&entry.service);
                if !entry.is_together
                    && let Some(instances) = self.instances.get_mut(&name)
                {
                    *instances = instances.saturating_sub(1);
                }
            }
        }
        if !gone.is_empty() {
            self.by_identity.retain(|_, id| !gone.contains(id));
            self.by_address.retain(|_, (id, _)| !gone.contains(id));
            self.free.extend(&gone);
            self.instances.retain(|_, instances| *instances > 0);
        }
        gone
    }
}

/// What makes a service's series its own in every exporter: its namespace and name, and its instance.
fn identity(service: &Service) -> (Box<str>, Box<str>) {
    let text = |key: &str| {
        let found = service.resource.text.iter().find(|(name, _)| **name == *key);
        found.map(|(_, value)| &**value).unwrap_or_default()
    };
    let name = format!("{}\0{}", text("service.namespace"), service.name);
    (name.into(), text("service.instance.id").into())
}

/// Stands for all instances that are not told apart: what they have in common.
fn together(service: &Service) -> Service {
    let is_common = |key: &str| {
        let of_name = ["service.name", "service.namespace", "service.version"].contains(&key);
        of_name
            || ["telemetry.", "host.", "os."]
                .iter()
                .any(|prefix| key.starts_with(prefix))
    };
    let text = service.resource.text.iter();
    Service {
        tgid: 0,
        resource: Resource {
            text: text.filter(|(key, _)| is_common(key)).cloned().collect(),
            ..Resource::default()
        },
        ..service.clone()
    }
}
