/** The registry of workers. */

/** The shard that holds the registry: workers are few, and every process lists them all. */
export const REGISTRY_SHARD = 0
