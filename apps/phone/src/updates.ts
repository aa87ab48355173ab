// The service worker's life, seen from the page: registered after the first load, and a newer one
// waits until the person says so, because a page of one version must not run a worker of another.

export async function watchForUpdates(onReady: (apply: () => void) => void): Promise<void> {
  const workers = navigator.serviceWorker;
  if (!import.meta.env.PROD || !workers) return;
  let hadController = workers.controller !== null;
  workers.addEventListener("controllerchange", () => {
    if (hadController) location.reload();
    hadController = true;
  });
  const registration = await workers.register("sw.js", { scope: "./" }).catch(() => null);
  if (!registration) return; // e.g. a certificate that the browser does not trust
  const offer = (worker: ServiceWorker | null): void => {
    if (worker && workers.controller) onReady(() => worker.postMessage("take over"));
  };
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker?.addEventListener("statechange", () => {
      if (worker.state === "installed") offer(worker);
    });
  });
  offer(registration.waiting);
  // Where a worker is registered already, that alone asks the server for nothing.
  void registration.update().catch(() => undefined); // no network
}
