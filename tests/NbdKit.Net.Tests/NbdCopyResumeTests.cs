using System.Security.Cryptography;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public sealed class NbdCopyResumeTests
{
    private const int Block = 4096;
    private const int Blocks = 20;

    private ScratchDirectory _folder = null!;

    private NbdCopyOptions Options => new()
    {
        RequestSize = Block,
        MaxRequestsInFlight = 3,
        JournalPath = _folder["journal"],
        JournalIdentity = "model",
        JournalBytes = 1,
    };

    [SetUp]
    public void MakeFolder() => _folder = new ScratchDirectory();

    [TearDown]
    public void RemoveFolder() => _folder.Dispose();

    /// <summary>
    /// Takes the state that a power failure would leave before every single call of the destination: the journal, and only
    /// what was on stable storage. From each of them the copy must come to its end.
    /// </summary>
    [Test]
    public async Task Whenever_the_power_fails_the_copy_is_completed_by_the_next_run(
        [Range(1, 4)] int seed, [Values(1, 3)] int requests)
    {
        byte[] content = SparseData.Random((Block * Blocks) - 100, new Random(seed), 12_000);
        byte[] before = TestData.Random(Block * Blocks, seed);
        var states = new List<(byte[] Journal, byte[] Disk)>();
        var to = new ModelPlugin(before) { Yields = true };
        to.Before = _ =>
        {
            lock (states)
            {
                states.Add((Journal(), [.. to.Stable]));
            }
            return Task.CompletedTask;
        };
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using (CopyDisk destination = await CopyDisk.OpenAsync(to))
        {
            await NbdCopy.CopyAsync(
                source.Source, destination.Destination, Options with { MaxRequestsInFlight = requests }).Soon();
        }
        Assert.That(File.Exists(_folder["journal"]), Is.False, "the journal is removed at the end");
        Assert.That(states, Has.Count.GreaterThan(10));

        long resumed = 0;
        foreach ((byte[] journal, byte[] disk) in states)
        {
            File.WriteAllBytes(_folder["journal"], journal);
            await using CopyDisk destination = await CopyDisk.OpenAsync(disk);

            NbdCopyResult result = await NbdCopy.CopyAsync(source.Source, destination.Destination, Options).Soon();

            Assert.That(destination.Plugin.Data.AsSpan(0, content.Length).SequenceEqual(content), $"seed {seed}");
            Assert.That(destination.Plugin.Stable, Is.EqualTo(destination.Plugin.Data));
            Assert.That(result.Size, Is.EqualTo(content.Length));
            resumed = Math.Max(resumed, result.BytesResumed);
        }
        // With several requests the others may all be written during the first flush.
        Assert.That(resumed, Is.GreaterThan(requests == 1 ? Block * Blocks / 2 : 0), "later runs have less to do");
    }

    [Test]
    public async Task After_an_error_anywhere_the_rest_is_copied_by_the_next_run([Range(0, Blocks - 1)] int k)
    {
        byte[] content = TestData.Random(Block * Blocks, k);
        byte[] disk;
        await using (CopyDisk source = await CopyDisk.OpenAsync(content, Failing(k)))
        await using (CopyDisk destination = await CopyDisk.OpenAsync(new byte[Block * Blocks]))
        {
            Assert.ThrowsAsync<NbdCopyException>(
                () => NbdCopy.CopyAsync(source.Source, destination.Destination, OneAtATime).Soon());
            disk = destination.Plugin.Stable;
        }
        await using CopyDisk again = await CopyDisk.OpenAsync(content);
        await using CopyDisk rest = await CopyDisk.OpenAsync(disk);

        NbdCopyResult result = await NbdCopy.CopyAsync(again.Source, rest.Destination, OneAtATime).Soon();

        Assert.That(rest.Plugin.Data, Is.EqualTo(content));
        Assert.That((result.BytesResumed, result.BytesRead), Is.EqualTo((k * Block, (Blocks - k) * Block)));
        Assert.That(File.Exists(_folder["journal"]), Is.False);
    }

    [Test]
    public async Task However_often_it_fails_it_comes_to_its_end([Range(1, 12)] int seed)
    {
        var random = new Random(seed);
        byte[] content = SparseData.Random(Block * 50, random, 20_000);
        byte[] disk = TestData.Random(Block * 50, seed);
        int runs = 0;
        for (bool done = false; !done; runs++)
        {
            Assert.That(runs, Is.LessThan(200), $"seed {seed}");
            await using CopyDisk source = await CopyDisk.OpenAsync(
                new ModelPlugin(content) { Yields = true }, 1, new ErrorFilter { All = new ErrorRule { Rate = 0.1 }, Seed = seed + runs });
            await using CopyDisk destination = await CopyDisk.OpenAsync(
                new ModelPlugin(disk) { Yields = true }, 1, new ErrorFilter { All = new ErrorRule { Rate = 0.1 }, Seed = seed - runs });
            try
            {
                await NbdCopy.CopyAsync(
                    source.Source, destination.Destination, Options with { JournalBytes = Block * (1 + random.Next(9)) }).Soon();
                done = true;
            }
            catch (NbdCopyException e) when (e.Fault is NbdCopyFault.Source or NbdCopyFault.Destination)
            {
                Assert.That(File.Exists(_folder["journal"]));
            }
            // What was not flushed is lost each time.
            disk = destination.Plugin.Stable;
        }
        Assert.That(runs, Is.GreaterThan(1), $"seed {seed}");
        Assert.That(disk.AsSpan().SequenceEqual(content), $"seed {seed}");
    }

    [Test]
    public async Task What_is_resumed_is_read_for_the_hash_but_not_written_again()
    {
        byte[] content = SparseData.Random(Block * Blocks, new Random(4), 9000);
        byte[] disk;
        await using (CopyDisk source = await CopyDisk.OpenAsync(content, Failing(13)))
        await using (CopyDisk destination = await CopyDisk.OpenAsync(new byte[Block * Blocks]))
        {
            Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
                source.Source, destination.Destination, OneAtATime with { ComputeHash = true, UseExtents = false }).Soon());
            disk = destination.Plugin.Stable;
        }
        await using CopyDisk again = await CopyDisk.OpenAsync(content);
        await using CopyDisk rest = await CopyDisk.OpenAsync(disk);

        NbdCopyResult result = await NbdCopy.CopyAsync(
            again.Source, rest.Destination, OneAtATime with { ComputeHash = true, Verify = true }).Soon();

        Assert.That(result.Sha256!.Value.ToArray(), Is.EqualTo(SHA256.HashData(content)));
        Assert.That(result.BytesResumed, Is.EqualTo(13 * Block));
        Assert.That(
            rest.Plugin.TakeCalls().Where(call => call.StartsWith("write") || call.StartsWith("zero")),
            Has.All.Matches<string>(call => long.Parse(call.Split(' ', '+')[1]) >= 13 * Block));
    }

    [Test]
    public async Task Cancellation_flushes_and_records_what_was_written()
    {
        byte[] content = TestData.Random(Block * Blocks, 3);
        using var cancelled = new CancellationTokenSource();
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(content)
        {
            Before = call =>
            {
                if (call.StartsWith($"read {Block * 9}+", StringComparison.Ordinal))
                {
                    cancelled.Cancel();
                    cancelled.Token.ThrowIfCancellationRequested();
                }
                return Task.CompletedTask;
            },
        });
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[Block * Blocks]);
        NbdCopyOptions options = OneAtATime with { JournalBytes = 1L << 40, TimeProvider = new FakeTimeProvider() };

        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination, options, cancelled.Token).Soon(),
            Throws.InstanceOf<OperationCanceledException>());
        source.Plugin.Before = null;
        NbdCopyResult result = await NbdCopy.CopyAsync(source.Source, destination.Destination, options).Soon();

        Assert.That(result.BytesResumed, Is.EqualTo(Block * 9));
        Assert.That(destination.Plugin.Data, Is.EqualTo(content));
    }

    [Test]
    public async Task A_flush_that_runs_when_it_is_cancelled_is_waited_for_and_recorded()
    {
        byte[] content = TestData.Random(Block * Blocks, 3);
        using var cancelled = new CancellationTokenSource();
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        var to = new ModelPlugin(new byte[Block * Blocks])
        {
            Before = async call =>
            {
                if (call == "flush")
                {
                    await cancelled.CancelAsync();
                    await Task.Yield();
                }
            },
        };
        await using CopyDisk destination = await CopyDisk.OpenAsync(to);
        NbdCopyOptions options = OneAtATime with { JournalBytes = Block * 6, TimeProvider = new FakeTimeProvider() };

        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination, options, cancelled.Token).Soon(),
            Throws.InstanceOf<OperationCanceledException>());
        Assert.That(to.TakeCalls().Count(call => call == "flush"), Is.EqualTo(1));
        to.Before = null;
        NbdCopyResult result = await NbdCopy.CopyAsync(source.Source, destination.Destination, options).Soon();

        Assert.That(result.BytesResumed, Is.EqualTo(Block * 6));
    }

    [Test]
    public async Task A_failed_flush_makes_nothing_certain()
    {
        byte[] content = TestData.Random(Block * Blocks, 3);
        int flushes = 0;
        var to = new ModelPlugin(new byte[Block * Blocks])
        {
            Before = call => call == "flush" && ++flushes > 1
                ? throw new NbdException(NbdError.IoError, "lost") : Task.CompletedTask,
        };
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk destination = await CopyDisk.OpenAsync(to);
        NbdCopyOptions options = OneAtATime with { JournalBytes = Block * 5 };

        NbdCopyException failure = Assert.ThrowsAsync<NbdCopyException>(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination, options).Soon())!;
        to.Before = null;
        NbdCopyResult result = await NbdCopy.CopyAsync(source.Source, destination.Destination, options).Soon();

        Assert.That(failure.Fault, Is.EqualTo(NbdCopyFault.Destination));
        Assert.That(flushes, Is.EqualTo(2), "no flush after the one that failed");
        Assert.That(result.BytesResumed, Is.EqualTo(Block * 5));
    }

    [Test]
    public async Task The_journal_is_kept_by_the_clock_too()
    {
        var time = new FakeTimeProvider();
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(TestData.Random(Block * Blocks))
        {
            Before = _ =>
            {
                time.Advance(TimeSpan.FromSeconds(1));
                return Task.CompletedTask;
            },
        });
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[Block * Blocks]);

        await NbdCopy.CopyAsync(source.Source, destination.Destination, OneAtATime with
        {
            JournalBytes = 1L << 40,
            JournalInterval = TimeSpan.FromSeconds(10),
            TimeProvider = time,
            UseExtents = false,
        }).Soon();

        Assert.That(destination.Plugin.TakeCalls().Count(call => call == "flush"), Is.EqualTo(3));
    }

    [Test]
    public async Task A_journal_of_another_copy_is_refused()
    {
        await using (CopyDisk source = await CopyDisk.OpenAsync(TestData.Random(Block * Blocks), Failing(3)))
        await using (CopyDisk destination = await CopyDisk.OpenAsync(new byte[Block * Blocks]))
        {
            Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(source.Source, destination.Destination, Options));
        }
        await using CopyDisk other = await CopyDisk.OpenAsync(TestData.Random(Block * Blocks));
        await using CopyDisk to = await CopyDisk.OpenAsync(new byte[Block * Blocks]);

        NbdCopyException refusal = Assert.ThrowsAsync<NbdCopyException>(
            () => NbdCopy.CopyAsync(other.Source, to.Destination, Options with { JournalIdentity = "other" }))!;

        Assert.That(refusal.Fault, Is.EqualTo(NbdCopyFault.Journal));
        Assert.That(refusal.Message, Does.Contain("'model'").And.Contain("'other'"));
        Assert.That(to.Plugin.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task Without_flushes_there_is_no_journal()
    {
        var info = ModelPlugin.Everything with { CanFlush = false, CanFua = Support.None };
        await using CopyDisk source = await CopyDisk.OpenAsync(new byte[Block]);
        await using CopyDisk destination = await CopyDisk.OpenAsync(new ModelPlugin(new byte[Block], info));
        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination, Options),
            Throws.TypeOf<NbdCopyException>().With.Property("Fault").EqualTo(NbdCopyFault.Journal));
        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, NbdCopyDestination.Null, Options), Throws.ArgumentException);
    }

    private NbdCopyOptions OneAtATime => Options with { MaxRequestsInFlight = 1 };

    private static ErrorFilter Failing(int block)
        => new() { Decide = r => r.Operation == ErrorOperation.Read && r.Offset == block * Block ? NbdError.IoError : null };

    /// <summary>What the journal holds, although the copy has it open for itself.</summary>
    private byte[] Journal() => Convert.FromBase64String(ScratchDirectory.Run("base64", "-w0", _folder["journal"]));
}
