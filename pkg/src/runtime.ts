import type { RequestInit, Response } from "./globals.js";

/** What differs between a browser and Node, for whoever runs a module. */
export interface Runtime {
  fetch(url: string, init: RequestInit): Promise<Response>;
  /**
   * Calls back when a module traps outside a call into it (a trap in a resumed future reaches nobody's `catch`); true says that the
   * trap is the listener's. Returns how to stop listening.
   */
  onTrap(listener: (error: Error) => boolean): () => void;
}
