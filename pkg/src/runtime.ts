/** What differs between a browser and Node, for whoever runs a module. */
export interface Runtime {
  fetch(url: string, init: RequestInit): Promise<Response>;
  /**
   * Calls back when the module traps outside a call into it (a trap in a resumed future reaches nobody's `catch`).
   * Returns how to stop listening.
   */
  onTrap(listener: (error: unknown) => void): () => void;
}
