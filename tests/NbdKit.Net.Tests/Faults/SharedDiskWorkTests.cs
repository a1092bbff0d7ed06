using NbdKit.Tests.Testing;
using NUnit.Framework.Constraints;

namespace NbdKit.Tests.Faults;

/// <summary>Whether the checker of shared disks sees what it is there for, and nothing else.</summary>
public sealed class SharedDiskWorkTests
{
    private const int Connections = 8;
    private const int Operations = 4000;

    [Test]
    public void A_disk_without_a_defect_passes([Values(1, 2)] int seed)
        => Assert.That(() => RunAsync(DiskDefect.None, seed), Throws.Nothing);

    [TestCase(DiskDefect.Tears, @"^Block \d+ was torn: it held .* and .*, and .*, which write \d+ had replaced before the read began\.$")]
    [TestCase(DiskDefect.LosesWrites, @"^Block \d+ held .*, which write \d+ had replaced before the read began\.$")]
    [TestCase(DiskDefect.Misplaces, @"^Block \d+ held write \d+, which was of the blocks from \d+ to \d+\.$|had replaced before the read began\.$")]
    [TestCase(DiskDefect.KeepsReads, @"^Block \d+ held .*, which write \d+ had replaced before the read began\.$")]
    [TestCase(DiskDefect.KeepsWrites, @"^Block \d+ held .*, which write \d+ had replaced before the read began\.$")]
    [TestCase(DiskDefect.FlushesOwn, @"^Block \d+ after a power cut held .*, which write \d+ had replaced durably\.$")]
    [TestCase(DiskDefect.IgnoresFua, @"^Block \d+ after a power cut held .*, which write \d+ had replaced durably\.$")]
    public void A_disk_with_a_defect_is_found_out(DiskDefect defect, string message)
    {
        for (int seed = 1; seed <= 5; seed++)
        {
            Assert.That(
                () => RunAsync(defect, seed), Throws.InvalidOperationException.With.Message.Matches(message), $"seed {seed}");
        }
    }

    [Test]
    public void A_block_that_is_read_while_it_is_written_may_be_torn()
    {
        var disk = new Disk();
        disk.End(disk.Begin(1));
        int write = disk.Begin(1);
        disk.Write(write, 40);
        disk.Read();
        disk.Write(write, 64);
        disk.End(write);
        disk.Read();
    }

    [Test]
    public void A_block_that_is_torn_when_its_write_is_over_is_found_out()
    {
        var disk = new Disk();
        disk.End(disk.Begin(1));
        int write = disk.Begin(0);
        disk.Write(write, 63);
        disk.End(write);
        Assert.That(disk.Read, Fails("Block 0 was torn: it held write 2 and write 1, and write 1, which write 2 had replaced before the read began."));
    }

    [Test]
    public void Two_writes_that_come_together_may_leave_either_s_words_but_the_same_to_everybody()
    {
        var disk = new Disk();
        int one = disk.Begin(0);
        int other = disk.Begin(0);
        disk.Write(one, 64);
        disk.Write(other, 20);
        disk.End(one);
        disk.End(other);
        disk.Read();
        disk.Read();
        disk.Write(other, 21);
        Assert.That(disk.Read, Fails("Block 0 held write 2 and write 1 and then write 2 and write 1, and nobody wrote to it between."));
    }

    [Test]
    public void What_was_seen_once_does_not_go_away()
    {
        var disk = new Disk();
        int before = disk.Begin(1);
        disk.End(before);
        int write = disk.Begin(1);
        disk.Read();
        disk.Write(before, 64);
        Assert.That(disk.Read, Fails("Block 0 held write 1, which write 2 had replaced before the read began."));
    }

    private static Constraint Fails(string message) => Throws.InvalidOperationException.With.Message.EqualTo(message);

    /// <summary>One thing after the other, so that it is the same each time.</summary>
    private static async Task RunAsync(DiskDefect defect, int seed)
    {
        var disk = new DefectiveDisk(defect, new Random(seed));
        await using var server = new NbdServer(NbdBackend.Compose(disk), new NbdServerOptions());
        await server.StartAsync();
        var clients = new List<NbdClient>();
        for (int i = 0; i < Connections; i++)
        {
            var pipes = new PipePair();
            _ = server.ServeAsync(pipes.Server);
            clients.Add(await NbdClient.ConnectAsync(pipes.Client));
        }
        var work = new SharedDiskWork(new BlockHistory(SharedDiskWork.Blocks, Operations), (_, image) =>
        {
            disk.Cut(image.Span);
            return default;
        });
        var random = new Random(seed);
        await work.RunAsync(clients, Operations, random);
        await work.EndAsync(clients, random);
        foreach (NbdClient client in clients)
        {
            await client.DisposeAsync();
        }
    }

    /// <summary>A disk of one block, by hand.</summary>
    private sealed class Disk
    {
        private readonly BlockHistory _history = new(1, 10);
        private readonly long[] _words = new long[BlockHistory.BlockSize / sizeof(long)];

        /// <summary>Begins a write, and does it if that is wanted.</summary>
        public int Begin(int times)
        {
            int write = _history.Begin(0, new byte[BlockHistory.BlockSize]);
            Write(write, times * _words.Length);
            return write;
        }

        public void Write(int write, int words) => _words.AsSpan(0, words).Fill(write);

        public void End(int write) => _history.End(write, isDurable: false);

        public void Read()
        {
            var sight = new BlockSight(1);
            _history.Look(0, 1, sight);
            _history.Check(0, System.Runtime.InteropServices.MemoryMarshal.AsBytes(_words.AsSpan()), sight);
        }
    }
}
