import { defineConfig, mergeConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** What breaks, all of it: minutes for each store. */
export default mergeConfig(
  config,
  defineConfig({
    test: {
      env: { CHICORY_TEST_FAULTS: "all" },
      // a suite that starts servers and processes has a machine of two processors busy
      maxWorkers: 2
    }
  })
)
