using System.Buffers.Binary;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using NbdKit.Benchmarks.Load;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Attacks;

/// <summary>What a client can do before it has asked for a disk.</summary>
internal static class HandshakeAttacks
{
    private const int InfoName = 1;

    private static readonly uint[] Edges = [0, 1, 1023, 1025, 4095, 4097, 65_536, 1 << 20, int.MaxValue, 1u << 31, uint.MaxValue - 1, uint.MaxValue];

    public static string Silence(Victim victim)
    {
        using var crowd = new Crowd();
        crowd.Fill(2000, victim.Connect);
        return $"meanwhile {victim.Ask()}";
    }

    public static string Cuts(Victim victim)
    {
        byte[] go = victim.Go;
        for (int round = 0; round < 40; round++)
        {
            for (int length = 0; length <= go.Length; length++)
            {
                Try(() =>
                {
                    using Socket socket = victim.Connect();
                    LoadHandshake.SendAll(socket, go.AsSpan(0, length));
                });
            }
        }
        return "";
    }

    public static string Lengths(Victim victim)
    {
        int ended = 0;
        foreach (OptionType option in (OptionType[])[OptionType.ExportName, OptionType.List, OptionType.Info, OptionType.Go, OptionType.ListMetaContext])
        {
            foreach (uint outer in Edges)
            {
                foreach (uint inner in Edges)
                {
                    Try(() =>
                    {
                        using Socket socket = victim.Connect();
                        LoadHandshake.SendAll(socket, Flags());
                        LoadHandshake.SendAll(socket, Header(option, outer));
                        byte[] data = new byte[(int)Math.Min(outer, 1 << 20)];
                        data.AsSpan().Fill((byte)'x');
                        if (data.Length >= 4)
                        {
                            BinaryPrimitives.WriteUInt32BigEndian(data, inner);
                        }
                        LoadHandshake.SendAll(socket, data);
                        socket.Shutdown(SocketShutdown.Send);
                        while (socket.Receive(new byte[65_536]) > 0)
                        {
                        }
                    });
                    ended += victim.Server.HasEnded ? 1 : 0;
                }
            }
        }
        return ended > 0 ? "it ended meanwhile" : "";
    }

    /// <summary>NBD_OPT_INFO that asks for the same thing very often.</summary>
    public static string Repetition(Victim victim)
    {
        const int Count = 12_000;
        byte[] data = new byte[4 + 2 + (2 * Count)];
        BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(4), Count);
        for (int i = 0; i < Count; i++)
        {
            BinaryPrimitives.WriteUInt16BigEndian(data.AsSpan(6 + (2 * i)), InfoName);
        }
        long sent = 0;
        long received = 0;
        Try(() =>
        {
            using Socket socket = victim.Connect();
            LoadHandshake.SendAll(socket, Flags());
            byte[] option = [.. Header(OptionType.Info, (uint)data.Length), .. data];
            Thread reader = new(() => Try(() =>
            {
                byte[] buffer = new byte[1 << 20];
                int count;
                while ((count = socket.Receive(buffer)) > 0)
                {
                    received += count;
                }
            }));
            reader.Start();
            for (int i = 0; i < 40; i++)
            {
                LoadHandshake.SendAll(socket, option);
                sent += option.Length;
            }
            // Until nothing more comes: the socket's own patience ends it.
            reader.Join();
        });
        return $"{received / 1e6:0.0} MB for {sent / 1e6:0.0} MB";
    }

    public static string Descriptors(Victim victim)
    {
        using var crowd = new Crowd();
        crowd.Fill(1000, victim.Connect);
        try
        {
            TimeSpan before = victim.Server.ProcessorTime;
            var watch = Stopwatch.StartNew();
            Thread.Sleep(3000);
            return $"{100 * ((victim.Server.ProcessorTime - before) / watch.Elapsed):0} % of a processor while full";
        }
        catch (InvalidOperationException)
        {
            // It has ended, which its caller sees.
            return "";
        }
    }

    private static byte[] Flags() => Encoding.ASCII.GetBytes("\0\0\0\u0003");

    private static byte[] Header(OptionType option, uint length)
    {
        byte[] header = new byte[16];
        BinaryPrimitives.WriteUInt64BigEndian(header, Magic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(header.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(header.AsSpan(12), length);
        return header;
    }

    /// <summary>Does something to a server that may refuse it in any way.</summary>
    private static void Try(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is SocketException or EndOfStreamException or InvalidDataException)
        {
            // Being refused is what the server is asked to do.
        }
    }
}
