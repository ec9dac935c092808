package dev.millrace.topology;

import static org.assertj.core.api.Assertions.assertThat;

import org.apache.kafka.common.config.TopicConfig;
import org.apache.kafka.streams.state.StoreBuilder;
import org.junit.jupiter.api.Test;

class InFlightStoreTest {
  @Test
  void shouldHaveTheBrokerCompressTheChangelogOfPromptsAlone() {
    assertThat(InFlightStore.builders())
        .filteredOn(b -> b.logConfig().containsKey(TopicConfig.COMPRESSION_TYPE_CONFIG))
        .extracting(StoreBuilder::name)
        .containsExactly(InFlightStore.PROMPTS);
  }
}
