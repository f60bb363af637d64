import { defineConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** Runs every fault, where `npm test` runs a few of each kind. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    exclude: [],
    env: { CHICORY_TEST_FAULTS: "all" },
    // one suite with its servers and processes keeps two processors busy
    maxWorkers: 2
  }
})
