using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public class BlockMapTests
{
    [Test]
    public void A_new_map_is_one_run_of_blocks_below([Values(1L, 16_384L, 16_385L, 1L << 51)] long blocks)
    {
        var map = new BlockMap(blocks);
        Assert.That(map.IsEmpty, Is.True);
        Assert.That(map.Run(0, blocks, out long end), Is.EqualTo(BlockState.Below));
        Assert.That(end, Is.EqualTo(blocks));
    }

    [Test]
    public void Runs_agree_with_a_model_after_random_changes([Values(1, 2, 3, 4)] int seed)
    {
        const int Blocks = 100_000;
        var random = new Random(seed);
        var map = new BlockMap(Blocks);
        var model = new BlockState[Blocks];
        for (int i = 0; i < 300; i++)
        {
            int first = random.Next(Blocks);
            int length = random.Next(4) == 0 ? random.Next(1, Blocks - first + 1) : Math.Min(random.Next(1, 200), Blocks - first);
            var state = (BlockState)random.Next(3);
            map.Set(first, first + length, state);
            Array.Fill(model, state, first, length);
            int at = 0;
            while (at < Blocks)
            {
                BlockState found = map.Run(at, Blocks, out long end);
                int expected = at;
                while (expected < Blocks && model[expected] == model[at])
                {
                    expected++;
                }
                Assert.That((found, end), Is.EqualTo((model[at], (long)expected)), $"seed {seed}, change {i}, block {at}");
                at = expected;
            }
        }
    }

    [Test]
    public void A_run_ends_where_it_is_told_to()
    {
        var map = new BlockMap(1000);
        map.Set(10, 20, BlockState.Stored);
        Assert.That(map.Run(12, 15, out long end), Is.EqualTo(BlockState.Stored));
        Assert.That(end, Is.EqualTo(15));
        Assert.That(map.Run(19, 1000, out end), Is.EqualTo(BlockState.Stored));
        Assert.That(end, Is.EqualTo(20));
        Assert.That(map.Run(9, 1000, out end), Is.EqualTo(BlockState.Below));
        Assert.That(end, Is.EqualTo(10));
        Assert.That(map[10], Is.EqualTo(BlockState.Stored));
    }

    [Test]
    public void The_largest_disk_can_be_trimmed_whole_and_written_at_both_ends()
    {
        const long Blocks = 1L << 51;
        var map = new BlockMap(Blocks);
        long before = GC.GetAllocatedBytesForCurrentThread();
        map.Set(0, Blocks, BlockState.Trimmed);
        map.Set(0, 1, BlockState.Stored);
        map.Set(Blocks - 1, Blocks, BlockState.Stored);
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(100_000));
        Assert.That(map.Run(1, Blocks, out long end), Is.EqualTo(BlockState.Trimmed));
        Assert.That(end, Is.EqualTo(Blocks - 1));
        Assert.That(map[0], Is.EqualTo(BlockState.Stored));
        Assert.That(map[Blocks - 1], Is.EqualTo(BlockState.Stored));
    }

    [Test]
    public void Parallel_changes_of_neighbours_do_not_disturb_each_other()
    {
        const int Blocks = 40_000;
        var map = new BlockMap(Blocks);
        Parallel.For(0, 4, worker =>
        {
            for (int block = worker; block < Blocks; block += 4)
            {
                map.Set(block, block + 1, worker % 2 == 0 ? BlockState.Stored : BlockState.Trimmed);
            }
        });
        for (int block = 0; block < Blocks; block++)
        {
            Assert.That(map[block], Is.EqualTo(block % 2 == 0 ? BlockState.Stored : BlockState.Trimmed));
        }
    }
}
