namespace NbdKit.Tests.Testing;

/// <summary>Bytes for tests.</summary>
internal static class TestData
{
    /// <summary>Random bytes, the same for the same seed.</summary>
    public static byte[] Random(int length, int seed = 1)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    /// <summary>Reads a range of an opened chain.</summary>
    public static async Task<byte[]> ReadAsync(NextContext disk, long offset, int length)
    {
        byte[] bytes = new byte[length];
        await disk.ReadAsync(bytes, offset, CancellationToken.None);
        return bytes;
    }

    /// <summary>Runs something that must fail a request, and returns the number that a client would get.</summary>
    public static NbdException Failure(Func<Task> request) => Assert.ThrowsAsync<NbdException>(() => request())!;
}
