using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public sealed class NbdCopyVerifyTests
{
    [Test]
    public async Task The_first_byte_that_differs_is_named([Range(1, 20)] int seed)
    {
        var random = new Random(seed);
        byte[] content = SparseData.Random(200_000, random);
        int[] bad = [.. Enumerable.Range(0, 1 + random.Next(4)).Select(_ => random.Next(content.Length))];
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(content) { Yields = true });
        await using CopyDisk destination = await CopyDisk.OpenAsync(Forgetting(content.Length, bad));
        using var folder = new ScratchDirectory();

        NbdCopyException failure = Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
            source.Source,
            destination.Destination,
            new NbdCopyOptions { Verify = true, RequestSize = 4096, JournalPath = folder["journal"] }).Soon())!;

        Assert.That((failure.Fault, failure.Offset), Is.EqualTo((NbdCopyFault.Mismatch, bad.Min())), $"seed {seed}");
        Assert.That(failure.Message, Does.Contain($"offset {bad.Min()}"));
        Assert.That(File.Exists(folder["journal"]), Is.False, "its ranges cannot be trusted");
    }

    [Test]
    public async Task A_stream_is_verified_by_its_hash()
    {
        byte[] content = SparseData.Random(200_000, new Random(1));
        await using CopyDisk good = await CopyDisk.OpenAsync(new byte[content.Length + 5]);
        await using CopyDisk bad = await CopyDisk.OpenAsync(Forgetting(content.Length + 5, 100_000));
        var options = new NbdCopyOptions { Verify = true, RequestSize = 4096 };

        NbdCopyResult result = await NbdCopy.CopyAsync(
            NbdCopySource.From(new MemoryStream(content)), good.Destination, options).Soon();
        NbdCopyException failure = Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
            NbdCopySource.From(new MemoryStream(content)), bad.Destination, options).Soon())!;

        Assert.That(result.Sha256, Is.Null, "it was not asked for");
        Assert.That((failure.Fault, failure.Offset), Is.EqualTo((NbdCopyFault.Mismatch, -1)));
    }

    [Test]
    public async Task A_destination_that_cannot_be_read_again_is_blamed()
    {
        byte[] content = TestData.Random(65_536);
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        await using CopyDisk destination = await CopyDisk.OpenAsync(new ModelPlugin(content)
        {
            Before = call => call.StartsWith("read", StringComparison.Ordinal)
                ? throw new NbdException(NbdError.IoError, "worn out") : Task.CompletedTask,
        });
        var options = new NbdCopyOptions { Verify = true };
        foreach (NbdCopySource from in new[] { source.Source, NbdCopySource.From(new MemoryStream(content)) })
        {
            Assert.That(
                () => NbdCopy.CopyAsync(from, destination.Destination, options).Soon(),
                Throws.TypeOf<NbdCopyException>().With.Property("Fault").EqualTo(NbdCopyFault.Destination)
                    .And.Message.Contains("again"));
        }
    }

    [Test]
    public async Task Only_a_disk_can_be_verified()
    {
        await using CopyDisk source = await CopyDisk.OpenAsync(new byte[5]);
        foreach (NbdCopyDestination destination in new[] { NbdCopyDestination.Null, NbdCopyDestination.To(new MemoryStream()) })
        {
            Assert.That(
                () => NbdCopy.CopyAsync(source.Source, destination, new NbdCopyOptions { Verify = true }), Throws.ArgumentException);
        }
    }

    /// <summary>A disk on which bytes change behind the back of its user when it is flushed.</summary>
    private static ModelPlugin Forgetting(int size, params int[] offsets)
    {
        var plugin = new ModelPlugin(new byte[size]);
        bool done = false;
        plugin.Before = call =>
        {
            if (call == "flush" && !done)
            {
                done = true;
                foreach (int offset in offsets.Distinct())
                {
                    plugin.Data[offset] ^= 1;
                }
            }
            return Task.CompletedTask;
        };
        return plugin;
    }
}
