package dev.millrace.inference.backend.cuda;

import dev.millrace.inference.backend.DeviceException;
import dev.millrace.inference.backend.Tensor;
import dev.millrace.inference.engine.Batch;
import dev.millrace.inference.model.Model;
import dev.millrace.kernels.CudaException;
import dev.millrace.kernels.Graph;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A model's network, recorded as graphs for steps in which every sequence has one query token and
 * wants logits: from the first norm to the logits, for a ladder of numbers of rows. A step takes
 * the next larger one; rows that are none of its own are computed for nothing. What comes before,
 * embedding and angles, is one kernel, which also brings the step's arrays; it and the drawing of
 * tokens afterwards are launched apart: they read what the step before drew, which lies elsewhere
 * each time. A network that is one kernel needs no graph.
 *
 * <p>Recorded when a runner opens; the backend owns and closes it.
 */
final class DecodeGraphs implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(DecodeGraphs.class);

  /** Blocks in tables that there is room for if sequences share long beginnings. */
  private static final long SHARED_BLOCKS = 1 << 22;

  /** No more are recorded after so long, or when the GPU has less memory left. */
  private static final long MOST_NANOS = 20_000_000_000L;

  private static final long LEAST_FREE = 256L << 20;

  private final CudaBackend backend;
  private final Model model;
  private final CudaKvCache cache;
  private final int maxContext;
  private final int atOnce;

  /** Heads of keys and values of layers that have any, each number once, and its plan. */
  private final List<Integer> kvHeads;

  private final List<AttentionPlan> plans;
  private final List<Recorded> graphs = new ArrayList<>();
  private final DecodeTables.Sheet sheet = new DecodeTables.Sheet();
  private long freed;
  private volatile long launched;

  /**
   * A step of so many rows.
   *
   * @param graph null where what was left is all
   */
  private record Recorded(
      int rows, DecodeTables tables, CudaStep.Left left, Tensor logits, @Nullable Graph graph) {}

  /**
   * @param maxContext most tokens of a sequence
   */
  DecodeGraphs(CudaBackend backend, Model model, CudaKvCache cache, int maxContext) {
    this.backend = backend;
    this.model = model;
    this.cache = cache;
    this.maxContext = maxContext;
    this.atOnce = backend.decodeBlocks(cache);
    this.kvHeads = model.config().kvHeads().stream().filter(n -> n > 0).distinct().toList();
    this.plans = kvHeads.stream().map(n -> new AttentionPlan(backend.invariant())).toList();
  }

  /** Numbers of rows that there are graphs for: few rows more than a step has are computed. */
  static List<Integer> ladder(int most) {
    List<Integer> ladder = new ArrayList<>(List.of(1, 2, 3, 4));
    for (int rows = 8; rows <= most; rows += rows < 256 ? 8 : rows < 512 ? 16 : 32) {
      ladder.add(rows);
    }
    ladder.removeIf(rows -> rows >= most);
    ladder.add(most);
    return ladder;
  }

  /**
   * Records graphs for steps of up to so many sequences. Everything that a step needs was loaded
   * and taken before.
   */
  void record(int maxSequences) {
    long start = System.nanoTime();
    long free = backend.deviceFreeBytes();
    try {
      long address = backend.tables(tables(0, maxSequences, false).bytes());
      for (int rows : ladder(maxSequences)) {
        if (System.nanoTime() - start > MOST_NANOS || backend.deviceFreeBytes() < LEAST_FREE) {
          LOG.info("Steps of {} sequences and more are no graphs: that would take too much", rows);
          break;
        }
        Recorded any = record(tables(address, rows, false), rows);
        if (any.graph != null && !backend.invariant()) {
          // Of steps that cut no sequence, most of them, nothing is to be put together.
          graphs.add(record(tables(address, rows, true), rows));
        }
        graphs.add(any);
      }
    } catch (DeviceException e) {
      LOG.warn(
          "There is no room for graphs, steps are launched piece by piece: {}", e.getMessage());
    } catch (CudaException e) {
      if (e.sticky()) {
        throw e;
      }
      LOG.warn("The driver records no (more) graphs, steps are launched piece by piece", e);
    }
    freed = backend.freed();
    LOG.info(
        "Recorded {} graphs of steps of 1 to {} sequences in {} ms and {}",
        graphs.size(),
        graphs.isEmpty() ? 0 : graphs.getLast().rows,
        (System.nanoTime() - start) / 1_000_000,
        DeviceArena.size(free - backend.deviceFreeBytes()));
  }

  private DecodeTables tables(long address, int rows, boolean whole) {
    // Sequences may share blocks: there may be more in tables than in the cache.
    long mostBlocks = Math.max(SHARED_BLOCKS, 2L * cache.blocks());
    return new DecodeTables(
        address,
        rows,
        DecodeTables.room(rows, maxContext, mostBlocks),
        kvHeads.stream().map(n -> room(rows, n, whole)).toList(),
        sheet);
  }

  private DecodeTables.Room room(int rows, int kvHeads, boolean whole) {
    if (backend.invariant()) {
      return new DecodeTables.Room(kvHeads, 0, 0, rows);
    }
    if (whole) {
      return new DecodeTables.Room(kvHeads, rows, 0, 0);
    }
    int cuts = AttentionPlan.mostCuts(rows, group(kvHeads), kvHeads, atOnce);
    return new DecodeTables.Room(kvHeads, rows + cuts, Math.min(rows, cuts), 0);
  }

  private int group(int kvHeads) {
    return model.config().heads() / kvHeads;
  }

  private Recorded record(DecodeTables tables, int rows) {
    CudaStep step = CudaStep.recorded(rows, tables.arrays());
    Tensor[] logits = new Tensor[1];
    Graph graph =
        backend.record(
            () -> {
              logits[0] = model.forward(step, cache);
            });
    CudaStep.Left left = step.left();
    if (left.whole() != null) {
      graph.close();
      graph = null;
    }
    return new Recorded(rows, tables, left, logits[0], graph);
  }

  /** Computes a step and draws its tokens; null if it is none that there is a graph for. */
  @Nullable CudaSampled run(Batch batch, @Nullable CudaSampled previous) {
    int rows = batch.sequences;
    if (!batch.isDecode() || graphs.isEmpty() || rows > graphs.getLast().rows) {
      return null;
    }
    if (backend.freed() != freed) {
      // Graphs would write where something else may be by now.
      LOG.warn("Memory that graphs work in was taken anew: steps are launched piece by piece");
      close();
      return null;
    }
    for (int i = 0; i < plans.size(); i++) {
      int n = kvHeads.get(i);
      plans.get(i).plan(batch, group(n), n, atOnce);
    }
    for (int i = first(rows); i < graphs.size(); i++) {
      Recorded recorded = graphs.get(i);
      if (recorded.tables.fit(batch, plans)) {
        return run(recorded, batch, previous);
      }
      if (recorded.rows >= 2 * rows) {
        break;
      }
    }
    return null;
  }

  /** The first graph with so many rows. */
  private int first(int rows) {
    int low = 0;
    int high = graphs.size() - 1;
    while (low < high) {
      int middle = (low + high) / 2;
      if (graphs.get(middle).rows < rows) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  private @Nullable CudaSampled run(Recorded recorded, Batch batch, @Nullable CudaSampled before) {
    CudaStep step = backend.begin(batch, before, recorded.tables, plans, recorded.left);
    try {
      if (recorded.graph != null) {
        backend.launch(recorded.graph);
      } else if (!Objects.requireNonNull(recorded.left.whole()).getAsBoolean()) {
        // Larger steps are graphs, and may take this one's rows.
        graphs.removeIf(g -> g.graph == null);
        return null;
      }
    } catch (CudaException e) {
      if (e.sticky()) {
        throw e;
      }
      LOG.warn("The driver launches graphs no more: steps are launched piece by piece", e);
      close();
      return null;
    }
    launched = launched + 1;
    return (CudaSampled) backend.sample(step, recorded.logits);
  }

  /** Steps that went by a graph, or as one kernel, so far. */
  long launched() {
    return launched;
  }

  @Override
  public void close() {
    graphs.stream().map(Recorded::graph).filter(Objects::nonNull).forEach(Graph::close);
    graphs.clear();
  }
}
