package dev.millrace.inference.planted;

import dev.millrace.inference.engine.planted.SeesBackend;

/** Breaks rules, so that a test sees that they notice. In no null-marked package either. */
public final class SeesEverything {
  org.apache.kafka.common.TopicPartition kafka;
  jcuda.Pointer jcuda;
  jdk.incubator.vector.FloatVector vector;
  ai.djl.huggingface.tokenizers.Encoding tokenizer;
  dev.millrace.topology.Environment topology;
  SeesBackend cycle;
}
