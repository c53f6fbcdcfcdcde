//! One signal to stop, seen by every controller: SIGTERM, SIGINT, or the loss of leadership.

use std::sync::Arc;

use tokio::sync::watch;

/// Hands out futures that end when the operator shall stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: Arc<watch::Sender<bool>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { sender: Arc::new(watch::Sender::new(false)) }
    }
}

impl Shutdown {
    /// Tells everybody to stop; again has no effect.
    pub fn trigger(&self) {
        self.sender.send_replace(true);
    }

    /// Whether [`Self::trigger`] was called.
    pub fn is_triggered(&self) -> bool {
        *self.sender.borrow()
    }

    /// Ends when [`Self::trigger`] was or is called.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let mut receiver = self.sender.subscribe();
        async move {
            // The sender cannot be gone: an error would only mean that everything is over.
            let _ = receiver.wait_for(|stop| *stop).await;
        }
    }
}
