namespace NbdKit.Tests.Testing;

/// <summary>
/// What must happen when a server breaks the protocol: the connection is dead, every request in flight fails with the one typed
/// exception, later ones too, nothing hangs, and nothing is written outside of the caller's buffers.
/// </summary>
internal static class ClientViolation
{
    public const int Length = 64;
    public const int Offset = 4096;
    private const int Canary = 256;

    /// <summary>Lets a server answer a read of <see cref="Length"/> bytes at <see cref="Offset"/> wrongly.</summary>
    public static Task CheckReadAsync(
        TransmissionExport export,
        Func<TransmissionServer, WireRequest, byte[]> reply,
        NbdClientError expected = NbdClientError.ProtocolViolation,
        bool dontFragment = false)
        => CheckAsync(
            export,
            (client, buffer) => dontFragment
                ? client.ReadSparseAsync(buffer, Offset, _ => { }, dontFragment: true)
                : client.ReadAsync(buffer, Offset),
            reply,
            expected);

    /// <summary>Lets a server answer a block status of <see cref="Length"/> bytes at <see cref="Offset"/> wrongly.</summary>
    public static async Task CheckStatusAsync(
        TransmissionExport export,
        Func<TransmissionServer, WireRequest, byte[]> reply,
        NbdClientError expected = NbdClientError.ProtocolViolation,
        RequestFlags flags = RequestFlags.None)
    {
        var extents = new ExtentList(Offset, export.Size);
        await CheckAsync(export, (client, _) => client.ExtentsAsync(Offset, Length, flags, extents), reply, expected);
        Assert.That(extents, Is.Empty);
    }

    public static async Task CheckAsync(
        TransmissionExport export,
        Func<NbdClient, Memory<byte>, ValueTask> request,
        Func<TransmissionServer, WireRequest, byte[]> reply,
        NbdClientError expected)
    {
        await using var server = new TransmissionServer(export);
        byte[] memory = [.. Enumerable.Repeat((byte)0xa5, Canary + Length + Canary)];
        Task answered = request(server.Client, memory.AsMemory(Canary, Length)).AsTask();
        WireRequest seen = await server.NextAsync();
        byte[] other = new byte[16];
        Task[] bystanders =
        [
            server.Client.ReadAsync(other, 0).AsTask(),
            server.Client.FlushAsync().AsTask(),
            server.Client.WriteAsync(new byte[100_000], 0).AsTask(),
        ];
        await server.NextAsync(bystanders.Length);

        await server.SendAsync(reply(server, seen));

        foreach (Task task in (Task[])[answered, .. bystanders])
        {
            NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => task.Soon())!;
            Assert.That(failure.Error, Is.EqualTo(expected), failure.Message);
        }
        Assert.That(memory.AsSpan(0, Canary).ToArray(), Is.All.EqualTo(0xa5), "bytes before the buffer");
        Assert.That(memory.AsSpan(Canary + Length).ToArray(), Is.All.EqualTo(0xa5), "bytes after the buffer");
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => server.Client.FlushAsync().AsTask().Soon())!.Error, Is.EqualTo(expected));
        Assert.That(server.Client.IsConnected, Is.False);
        Assert.That(await server.ReadToEndAsync(), Is.Empty, "nothing is sent after a violation, not even a goodbye");
    }
}
