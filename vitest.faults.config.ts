import { defineConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** What breaks, all of it. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    exclude: [],
    env: { CHICORY_TEST_FAULTS: "all" },
    // a suite that starts servers and processes keeps a machine of two processors busy
    maxWorkers: 2
  }
})
