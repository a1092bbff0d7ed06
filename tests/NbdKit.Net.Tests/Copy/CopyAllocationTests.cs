using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Copy;

/// <summary>In the steady state a piece allocates nothing.</summary>
[NonParallelizable]
public sealed class CopyAllocationTests
{
    private const int Piece = 4096;

    [TestCase(false)]
    [TestCase(true)]
    public async Task A_piece_allocates_nothing_from_memory_to_memory(bool hash)
    {
        const int pieces = 8192;
        await using NbdBackend from = NbdBackend.Compose(new MemoryPlugin { Size = pieces * Piece });
        await using NbdBackend to = NbdBackend.Compose(new MemoryPlugin { Size = pieces * Piece });
        await using NextContext source = await from.OpenAsync();
        await using NextContext destination = await to.OpenAsync();
        byte[] data = TestData.Random(1 << 20);
        for (int i = 0; i < pieces * Piece; i += data.Length)
        {
            await source.WriteAsync(data, i, RequestFlags.None, CancellationToken.None);
        }
        var options = new NbdCopyOptions { RequestSize = Piece, MaxRequestsInFlight = 4, ComputeHash = hash };
        // The first run warms up pools and code.
        await NbdCopy.CopyAsync(NbdCopySource.From(source), NbdCopyDestination.To(destination), options);

        long before = GC.GetTotalAllocatedBytes(precise: true);
        await NbdCopy.CopyAsync(NbdCopySource.From(source), NbdCopyDestination.To(destination), options);
        long allocated = GC.GetTotalAllocatedBytes(precise: true) - before;

        TestContext.Out.WriteLine($"{allocated} bytes for {pieces} pieces");
        Assert.That((double)allocated / pieces, Is.LessThan(16));
    }
}
