using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>A copy that met an error fails, and nothing arrives that was not read.</summary>
public sealed class NbdCopyErrorTests
{
    private const int Block = 4096;
    private const int Blocks = 24;

    private static readonly byte[] Before = [.. Enumerable.Repeat((byte)0xEE, Block * Blocks)];

    private static NbdCopyOptions Options(int requests) => new()
    {
        RequestSize = Block,
        MaxRequestsInFlight = requests,
        UseExtents = false,
        SparseSize = 0,
    };

    [Test]
    [Property("Threat", "CVE-2022-0485")]
    public async Task An_error_of_any_read_ends_the_copy(
        [Range(0, Blocks - 1)] int k, [Values(1, 6)] int requests, [Values] bool yields)
    {
        byte[] content = TestData.Random(Block * Blocks, k);
        var errors = new ErrorFilter { Decide = r => r.Offset == k * Block ? NbdError.OutOfMemory : null };
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(content) { Yields = yields }, 1, errors);
        await using CopyDisk destination = await CopyDisk.OpenAsync(new ModelPlugin(Before) { Yields = yields });

        NbdCopyException failure = Assert.ThrowsAsync<NbdCopyException>(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination, Options(requests)).Soon())!;

        Assert.That((failure.Fault, failure.Offset, failure.Error), Is.EqualTo((NbdCopyFault.Source, k * Block, NbdError.OutOfMemory)));
        Assert.That(failure.Message, Does.Contain("source").And.Contain($"offset {k * Block}"));
        AssertBlocks(destination.Plugin.Data, content, k);
        Assert.That(destination.Plugin.TakeCalls(), Has.None.EqualTo("flush"));
    }

    [Test]
    [Property("Threat", "CVE-2022-0485")]
    public async Task An_error_of_any_write_ends_the_copy([Range(0, Blocks - 1)] int k, [Values(1, 6)] int requests)
    {
        byte[] content = TestData.Random(Block * Blocks, k);
        var errors = new ErrorFilter { Decide = r => r.Offset == k * Block ? NbdError.NoSpace : null };
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(content) { Yields = true });
        await using CopyDisk destination = await CopyDisk.OpenAsync(new ModelPlugin(Before) { Yields = true }, 1, errors);

        NbdCopyException failure = Assert.ThrowsAsync<NbdCopyException>(
            () => NbdCopy.CopyAsync(source.Source, destination.Destination, Options(requests)).Soon())!;

        Assert.That((failure.Fault, failure.Offset, failure.Error), Is.EqualTo((NbdCopyFault.Destination, k * Block, NbdError.NoSpace)));
        AssertBlocks(destination.Plugin.Data, content, k);
    }

    [Test]
    public async Task An_error_of_a_zero_of_the_extents_or_of_the_flush_ends_the_copy()
    {
        byte[] content = new byte[Block * Blocks];
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk noZero = await CopyDisk.OpenAsync(
            Before, new ErrorFilter { Zero = new ErrorRule { Rate = 1 } });
        await using CopyDisk noExtents = await CopyDisk.OpenAsync(
            content, new ErrorFilter { Extents = new ErrorRule { Rate = 1 } });
        await using CopyDisk noFlush = await CopyDisk.OpenAsync(new ModelPlugin(Before)
        {
            Before = call => call == "flush" ? throw new NbdException(NbdError.IoError, "disk on fire") : Task.CompletedTask,
        });
        await using CopyDisk good = await CopyDisk.OpenAsync(Before);

        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, noZero.Destination).Soon(),
            Throws.TypeOf<NbdCopyException>().With.Property("Fault").EqualTo(NbdCopyFault.Destination));
        Assert.That(
            () => NbdCopy.CopyAsync(noExtents.Source, good.Destination).Soon(),
            Throws.TypeOf<NbdCopyException>().With.Property("Fault").EqualTo(NbdCopyFault.Source)
                .And.Message.Contains("extents"));
        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, noFlush.Destination).Soon(),
            Throws.TypeOf<NbdCopyException>().With.Property("Fault").EqualTo(NbdCopyFault.Destination)
                .And.Message.Contains("disk on fire"));
        Assert.That(good.Plugin.Data, Is.EqualTo(Before));
    }

    [Test]
    public async Task A_hash_waits_for_nobody_who_failed([Range(0, Blocks - 1)] int k)
    {
        var errors = new ErrorFilter { Decide = r => r.Offset == k * Block ? NbdError.IoError : null };
        await using CopyDisk source = await CopyDisk.OpenAsync(
            new ModelPlugin(TestData.Random(Block * Blocks)) { Yields = true }, 1, errors);

        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, NbdCopyDestination.Null, Options(8) with { ComputeHash = true }).Soon(),
            Throws.TypeOf<NbdCopyException>().With.Property("Offset").EqualTo(k * Block));
    }

    [Test]
    public async Task Cancellation_ends_it_at_once_with_the_token_of_the_caller()
    {
        using var cancelled = new CancellationTokenSource();
        var gate = new Gate();
        var plugin = new DelegatePlugin
        {
            Size = 1 << 30,
            ThreadModel = ThreadModel.Parallel,
            Read = (_, _, cancellationToken) => gate.PassAsync(cancellationToken),
        };
        await using NbdBackend backend = NbdBackend.Compose(plugin);
        await using NextContext context = await backend.OpenAsync();
        Task<NbdCopyResult> copy = NbdCopy.CopyAsync(
            NbdCopySource.From(context), NbdCopyDestination.Null, Options(5) with { ComputeHash = true }, cancelled.Token);
        await gate.ArrivedAsync(5);

        await cancelled.CancelAsync();

        Assert.That(() => copy.Soon(), Throws.InstanceOf<OperationCanceledException>()
            .With.Property("CancellationToken").EqualTo(cancelled.Token));
    }

    [Test]
    public async Task A_layer_that_answers_cancellation_with_an_error_does_not_hide_it()
    {
        using var cancelled = new CancellationTokenSource();
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(new byte[Block * Blocks])
        {
            Before = _ =>
            {
                cancelled.Cancel();
                throw new NbdException(NbdError.Shutdown, "the client left");
            },
        });
        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, NbdCopyDestination.Null, Options(2), cancelled.Token).Soon(),
            Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public async Task What_the_progress_callback_throws_ends_the_copy()
    {
        await using CopyDisk source = await CopyDisk.OpenAsync(new byte[Block * Blocks]);
        Assert.That(
            () => NbdCopy.CopyAsync(source.Source, NbdCopyDestination.Null, Options(2) with
            {
                ProgressInterval = TimeSpan.Zero,
                Progress = _ => throw new InvalidOperationException("no paper"),
            }).Soon(),
            Throws.InstanceOf<IOException>().With.Message.Contains("no paper"));
    }

    private static void AssertBlocks(byte[] arrived, byte[] content, int failed)
    {
        for (int i = 0; i < Blocks; i++)
        {
            Range block = (i * Block)..((i + 1) * Block);
            bool isOld = arrived[block].SequenceEqual(Before[block]);
            Assert.That(isOld || (i != failed && arrived[block].SequenceEqual(content[block])), $"block {i}");
        }
    }
}
