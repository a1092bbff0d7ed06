using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A client whose connection is not complete, and replies that come to the wrong one.</summary>
public sealed class HalfBuiltClientTests
{
    [Test, Property("Threat", "CVE-2021-3348")]
    public async Task Nothing_is_asked_of_a_connection_that_is_still_being_made()
    {
        var answered = new TaskCompletionSource();
        var server = new ScriptedServer();
        Func<byte[], byte[]?> go = server.Answers[Opt.Go];
        server.Answer(Opt.Go, data =>
        {
            answered.Task.Wait(WireClient.Deadline);
            return go(data);
        });
        server.Start();
        await using NbdHandshake handshake = await NbdHandshake.ConnectAsync(server.Client);

        Task<NbdClient> opening = handshake.OpenAsync("disk");

        await Assert.ThatAsync(() => handshake.ListAsync(), Throws.InvalidOperationException);
        await Assert.ThatAsync(() => handshake.InfoAsync("disk"), Throws.InvalidOperationException);
        await Assert.ThatAsync(() => handshake.ListMetaContextsAsync("disk"), Throws.InvalidOperationException);
        await Assert.ThatAsync(() => handshake.OpenAsync("disk"), Throws.InvalidOperationException);
        Assert.That(opening.IsCompleted, Is.False, "there is no client before the server has agreed");
        answered.SetResult();
        NbdClient client = await opening.Soon();
        await Assert.ThatAsync(() => handshake.ListAsync(), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(server.Trace.Count(option => option == Opt.Go), Is.EqualTo(1));
        Assert.That(server.Trace, Does.Not.Contain(Opt.List).And.Not.Contain(Opt.Info));
        Assert.That(server.Hasty, Is.False, "nothing came before the answer");
        ValueTask leaving = client.DisposeAsync();
        await server.Ended.Soon();
        await leaving.Soon();
        Assert.That(server.After, Has.Length.EqualTo(28), "nothing but the goodbye");
    }

    [Test, Property("Threat", "linux-2021-unexpected-messages")]
    public async Task A_reply_on_another_connection_ends_that_one_and_completes_nothing()
    {
        await using var asked = new TransmissionServer(TransmissionExport.Simple);
        await using var other = new TransmissionServer(TransmissionExport.Simple);
        byte[] buffer = new byte[64];
        // The second that is in flight: the other client's own request must not have the same cookie by chance.
        Task first = asked.Client.ReadAsync(new byte[64], 0).AsTask();
        WireRequest firstRequest = await asked.NextAsync();
        Task reading = asked.Client.ReadAsync(buffer, 0).AsTask();
        WireRequest request = await asked.NextAsync();

        await other.SendAsync([.. TransmissionServer.Simple(request.Cookie, 0), .. new byte[64].Select(_ => (byte)0xee)]);

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => other.Client.FlushAsync().AsTask().Soon())!.Error,
            Is.EqualTo(NbdClientError.ProtocolViolation));
        Assert.That(reading.IsCompleted, Is.False);
        Assert.That(asked.Client.IsConnected);
        byte[] content = [.. Enumerable.Range(0, 64).Select(i => (byte)i)];
        await asked.SucceedAsync(request, content);
        await reading.Soon();
        await asked.SucceedAsync(firstRequest, new byte[64]);
        await first.Soon();
        Assert.That(buffer, Is.EqualTo(content));
    }
}
