using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Every limit of a server.</summary>
internal static class LimitCases
{
    public static IEnumerable<LimitCase> All { get; } =
    [
        new("HandshakeTimeout", "the handshake took too long", async s => await s.TimesOutAsync(await s.Server.HaggleAsync())),
        new("OpenTimeout", "opening the export took too long", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            Task<OptionResult> going = client.TryGoAsync("slow");
            await s.Gate.ArrivedAsync();
            s.Time.Advance(TimeSpan.FromSeconds(31));
            Assert.That((await going.Soon()).Type, Is.EqualTo(Rep.Unknown));
            await client.ExpectHagglingAsync();
        }),
        new("MaxConnections", "clients are connected", async s =>
        {
            await s.Server.TransmitAsync();
            await s.Server.Connect().ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        })
        {
            Options = options => options with { MaxConnections = 2 },
        },
        new("MaxOptionPayload, refused", "longer than options may be", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            for (int i = 0; i < 3; i++)
            {
                await client.ExpectOptAsync(Rep.TooBig, Opt.Info, new byte[(128 << 10) + 1]);
            }
            await client.GoAsync();
        }),
        new("MaxOptionPayload, cut off", "the client sent an option of", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            await client.SendAsync(new WireBytes().U64(Magic.IHaveOpt).U32(Opt.Info).U32(uint.MaxValue).ToArray());
            await LimitCase.EndsAsync(client, NbdDisconnectReason.LimitExceeded);
        }),
        new("MaxOptions", "too many options", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            for (int i = 0; i < 66; i++)
            {
                await client.SendOptionAsync(0x77);
            }
            await LimitCase.EndsAsync(client, NbdDisconnectReason.LimitExceeded);
        }),
        new("MaxOpensInHandshake", "asked about exports too often", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            for (int i = 0; i < 6; i++)
            {
                await client.SendOptionAsync(Opt.Info, WireBytes.InfoRequest([]));
            }
            await LimitCase.EndsAsync(client, NbdDisconnectReason.LimitExceeded);
        }),
        new("MaxMetaQueries", "more meta context queries", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            string[] queries = [.. Enumerable.Repeat("base:", 1025)];
            for (int i = 0; i < 3; i++)
            {
                await client.ExpectOptAsync(Rep.TooBig, Opt.ListMeta, WireBytes.MetaRequest([], queries));
            }
            await client.GoAsync();
        }),
        new("MaxHandshakeReplyBytes, refused", "a list of exports was ended", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            Assert.That((await client.OptAsync(Opt.List)).Type, Is.EqualTo(Rep.TooBig));
            await client.GoAsync();
        })
        {
            Options = options => options with { MaxHandshakeReplyBytes = 128 << 10 },
        },
        new("MaxHandshakeReplyBytes, cut off", "too many replies to options", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            for (int i = 0; i < 60; i++)
            {
                await client.SendOptionAsync(Opt.Info, WireBytes.InfoRequest([], InfoType.Description));
            }
            await LimitCase.EndsAsync(client, NbdDisconnectReason.LimitExceeded);
        })
        {
            Options = options => options with { MaxHandshakeReplyBytes = 128 << 10, MaxOpensInHandshake = 1000 },
        },
        new("MaxPayload of a read", "longer than payloads may be", async s =>
        {
            WireClient client = await s.Server.TransmitAsync("vast");
            for (int i = 0; i < 3; i++)
            {
                Assert.That((await client.CallAsync(Cmd.Read, 0, (32 << 20) + 1)).Error, Is.Not.Zero);
            }
            await client.ExpectAliveAsync(null);
        }),
        new("MaxPayload of a write", "the client sent a payload of", async s =>
        {
            WireClient client = await s.Server.TransmitAsync("vast");
            await client.SendRequestAsync(Cmd.Write, 0, (32 << 20) + 1);
            await LimitCase.EndsAsync(client, NbdDisconnectReason.LimitExceeded);
        }),
        new("MaxRequestsInFlight", "as many requests are in flight as one connection", async s =>
            await s.WaitsAsync(await s.Server.TransmitAsync("held"), 10, 512))
        {
            Options = options => options with { MaxRequestsInFlight = 2 },
        },
        new("MaxBytesInFlight", "as many bytes are in flight as one connection", async s =>
            await s.WaitsAsync(await s.Server.TransmitAsync("held"), 10, 60_000))
        {
            Options = options => options with { MaxBytesInFlight = 100_000 },
        },
        new("MaxServerBytesInFlight", "as many bytes are in flight as the server", async s =>
            await s.WaitsAsync(await s.Server.TransmitAsync("held"), 10, 60_000))
        {
            Options = options => options with { MaxServerBytesInFlight = 200_000 },
        },
        new("StallTimeout of a sender", "the client stopped inside a message", async s =>
        {
            WireClient client = await s.Server.TransmitAsync();
            await client.SendAsync(WireBytes.Request(Cmd.Write, 1, 0, 4096).AsMemory(0, 20));
            await s.TimesOutAsync(client);
        }),
        new("StallTimeout inside a record of TLS", "the client stopped inside a message", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            await (await client.StartTlsAsync()).GoAsync();
            await client.SendAsync(new byte[] { 23, 3, 3, 0, 64, 1, 2, 3 });
            await s.TimesOutAsync(client);
        })
        {
            Options = options => options with { Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false } },
        },
        new("StallTimeout of a receiver", "the client does not take its replies", async s =>
        {
            WireClient client = s.Server.Connect(new PipePair(serverOutputLimit: 4096));
            await client.GreetAsync();
            await client.GoAsync();
            for (int i = 0; i < 4; i++)
            {
                await client.SendRequestAsync(Cmd.Read, 0, 16_384);
            }
            await s.TimesOutAsync(client);
        }),
        new("StopTimeout", "the server stopped", async s =>
        {
            WireClient client = await s.Server.TransmitAsync("held");
            await client.SendRequestAsync(Cmd.Read, 0, 512);
            await s.Gate.ArrivedAsync();
            Task stopping = s.Server.Server.StopAsync();
            await s.Time.AdvanceUntilAsync(client.Ended);
            await LimitCase.EndsAsync(client, NbdDisconnectReason.ServerStopped);
            await s.Time.AdvanceUntilAsync(stopping);
        }),
        new("StopTimeout of a handshake", "the server stopped during the handshake", async s =>
        {
            WireClient client = await s.Server.HaggleAsync();
            await client.ExpectHagglingAsync();
            Task stopping = s.Server.Server.StopAsync();
            await s.Time.AdvanceUntilAsync(client.Ended);
            await LimitCase.EndsAsync(client, NbdDisconnectReason.ServerStopped);
            await s.Time.AdvanceUntilAsync(stopping);
        }),
    ];
}
