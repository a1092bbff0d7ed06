using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>A copy to a server that goes away in the middle is taken up when there is one again.</summary>
public sealed class CopyResumeTests
{
    private const int Size = 8 << 20;
    private const int Seed = 19;

    [Test]
    public async Task A_copy_outlives_its_server()
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(Size, Seed);
        string disk = folder.WriteHole("disk", Size);
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        var options = new NbdCopyOptions
        {
            RequestSize = 65_536,
            MaxRequestsInFlight = 2,
            JournalPath = folder["journal"],
            JournalBytes = 1 << 20,
        };
        var half = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var gone = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        source.Plugin.Before = call =>
        {
            // The copy waits here until the server is gone, so that it cannot have ended before.
            if (call.StartsWith($"read {Size / 2}+", StringComparison.Ordinal))
            {
                half.TrySetResult();
                return gone.Task;
            }
            return Task.CompletedTask;
        };

        InteropServer first = await InteropServer.StartAsync(new FilePlugin { Path = disk });
        await using (NbdBackend client = NbdBackend.Compose(new NbdPlugin { Uri = first.Uri }))
        await using (NextContext destination = await client.OpenAsync())
        {
            Task<NbdCopyResult> copy = NbdCopy.CopyAsync(source.Source, NbdCopyDestination.To(destination), options);
            await half.Task.Soon();
            await first.DisposeAsync();
            gone.SetResult();
            NbdCopyException failure = Assert.ThrowsAsync<NbdCopyException>(() => copy.Soon())!;
            Assert.That(failure.Fault, Is.EqualTo(NbdCopyFault.Destination));
        }

        source.Plugin.Before = null;
        await using InteropServer second = await InteropServer.StartAsync(new FilePlugin { Path = disk });
        await using NbdBackend again = NbdBackend.Compose(new NbdPlugin { Uri = second.Uri });
        await using NextContext rest = await again.OpenAsync();
        NbdCopyResult result = await NbdCopy.CopyAsync(
            source.Source, NbdCopyDestination.To(rest), options with { Verify = true }).Soon();

        // How much the journal had when the server ended is a question of time.
        Assert.That(result.BytesResumed, Is.Positive);
        Assert.That(result.BytesRead, Is.EqualTo(Size - result.BytesResumed));
        Assert.That(File.ReadAllBytes(disk).AsSpan().SequenceEqual(content), $"seed {Seed}");
    }
}
