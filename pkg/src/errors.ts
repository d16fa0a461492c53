/** The stable words for what went wrong: the same as in Rust (`src/error.rs`) and in `docs/errors.md`. */
export const codes = [
  "invalid_text",
  "invalid_option",
  "missing_file",
  "http",
  "network",
  "timeout",
  "invalid_response",
  "invalid_json",
  "invalid_config",
  "invalid_tokenizer",
  "invalid_weights",
  "missing_tensor",
  "wrong_shape",
  "not_finite",
  "unsupported_model",
  "aborted",
  "disposed",
  "out_of_memory",
  "io",
  "no_device",
  "device_lost",
  "executor",
  "crashed",
] as const;

export type Code = (typeof codes)[number];

/** An error as it crosses to and from the engine. */
export interface Failure {
  code: Code;
  at: string;
  message: string;
  provider?: ProviderFailure;
}

/** What a remote provider said. Texts are its own, with the key struck out. */
export interface ProviderFailure {
  name: string;
  /** Of the answer; none if there was none. */
  status?: number;
  code?: string;
  type?: string;
  /** The field that it complains of. */
  param?: string;
  /** Whether the same call may succeed later. */
  retryable: boolean;
  requestId?: string;
  /** How long it asks to wait. */
  retryAfterMs?: number;
}

/** Every error this package throws. */
export class WickError extends Error {
  /** The stable code. */
  readonly code: Code;
  /** Where: a file, a tensor, `text 3`, an option. */
  readonly at: string;
  /** What a remote provider said, if it was one's. */
  readonly provider?: ProviderFailure;

  constructor(failure: Failure, cause?: unknown) {
    super(failure.message, cause === undefined ? undefined : { cause });
    // Named like the error of an aborted fetch, so that one check serves both.
    this.name = failure.code === "aborted" ? "AbortError" : "WickError";
    this.code = failure.code;
    this.at = failure.at;
    if (failure.provider) this.provider = failure.provider;
  }
}

export function isFailure(value: unknown): value is Failure {
  return typeof value === "object" && value !== null && (codes as readonly unknown[]).includes((value as Failure).code);
}
