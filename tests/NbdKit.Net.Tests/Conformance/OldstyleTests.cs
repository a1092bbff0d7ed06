using System.Buffers.Binary;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>"Oldstyle negotiation".</summary>
public sealed class OldstyleTests : WireTest
{
    private static readonly NbdServerOptions Oldstyle = new() { Oldstyle = true };

    [Test, Property("Rule", "S015")]
    public async Task S015_The_server_tells_about_the_default_export_without_handshake_flags_and_serves_it()
    {
        ServerFixture server = await ServeAsync(options: Oldstyle);
        WireClient client = server.Connect();

        byte[] greeting = await client.ReadAsync(152);

        Assert.That(Convert.ToHexString(greeting.AsSpan(0, 16)), Is.EqualTo("4E42444D41474943" + "0000420281861253"));
        Assert.That(BinaryPrimitives.ReadInt64BigEndian(greeting.AsSpan(16)), Is.EqualTo(64 << 10));
        Assert.That(BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(24)), Is.Zero, "handshake flags");
        ushort flags = BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(26));
        Assert.That(flags & (TxFlag.HasFlags | TxFlag.SendFlush | TxFlag.SendDf), Is.EqualTo(TxFlag.HasFlags | TxFlag.SendFlush));
        Assert.That(greeting.AsSpan(28).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
        byte[] data = await client.ReadDataAsync(0, 512);
        Assert.That(data, Is.EqualTo(server.Plugin.Data[..512]));
        await client.ExpectCallAsync(WireError.Inval, Cmd.BlockStatus, 0, 512);
        await client.SendRequestAsync(Cmd.Disc);
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
    }

    [Test, Property("Rule", "S016")]
    public void S016_Oldstyle_is_asked_for_and_never_together_with_tls()
    {
        Assert.That(new NbdServerOptions().Oldstyle, Is.False);
        foreach (bool required in new[] { true, false })
        {
            var options = new NbdServerOptions
            {
                Oldstyle = true,
                Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = required },
            };
            Assert.That(
                () => new NbdServer(NbdBackend.Compose(new TestPlugin()), options),
                Throws.ArgumentException.With.Message.Contains("oldstyle"));
        }
    }

    [Test]
    public async Task Without_a_default_export_the_client_is_cut_off()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("other")) { DefaultExport = null }, Oldstyle);
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
    }
}
