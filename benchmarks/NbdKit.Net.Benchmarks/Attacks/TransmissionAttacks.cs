using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Benchmarks.Load;

namespace NbdKit.Benchmarks.Attacks;

/// <summary>What a client can do once it has a disk.</summary>
internal static class TransmissionAttacks
{
    private const int Requests = 64;
    private const int Mebibyte = 1 << 20;

    public static string Vanish(Victim victim)
    {
        byte[] reads = RequestEncoding.Reads(Requests / 2, Mebibyte);
        for (int i = 0; i < 1000 && !victim.Server.HasEnded; i++)
        {
            using var crowd = new Crowd();
            if (crowd.Add(victim.Open) is { } socket)
            {
                TrySend(socket, [.. reads, .. reads]);
            }
        }
        return "";
    }

    public static string Deaf(Victim victim)
    {
        using var crowd = new Crowd();
        byte[] reads = RequestEncoding.Reads(1, 32 * Mebibyte);
        for (int i = 0; i < 50 && !victim.Server.HasEnded; i++)
        {
            if (crowd.Add(victim.Open) is { } socket)
            {
                for (int request = 0; request < Requests; request++)
                {
                    TrySend(socket, reads);
                }
            }
        }
        Thread.Sleep(3000);
        return $"meanwhile {victim.Ask()}";
    }

    public static string Stop(Victim victim)
    {
        using var crowd = new Crowd();
        byte[] reads = RequestEncoding.Reads(16, Mebibyte);
        for (int i = 0; i < 50; i++)
        {
            if (crowd.Add(victim.Open) is { } socket)
            {
                TrySend(socket, reads);
            }
        }
        for (int i = 0; i < 20; i++)
        {
            if (crowd.Add(victim.Connect) is { } socket)
            {
                TrySend(socket, victim.Go.AsSpan(0, i + 1));
            }
        }
        var watch = Stopwatch.StartNew();
        victim.Server.AskToStop();
        while (!victim.Server.HasEnded && watch.Elapsed < TimeSpan.FromSeconds(30))
        {
            Thread.Sleep(10);
        }
        return victim.Server.HasEnded ? $"stopped in {watch.Elapsed.TotalSeconds:0.0} s" : "did not stop in 30 s";
    }

    private static void TrySend(Socket socket, ReadOnlySpan<byte> bytes)
    {
        try
        {
            socket.Blocking = false;
            socket.Send(bytes);
        }
        catch (SocketException)
        {
            // The server takes no more, or has ended: both are looked at afterwards.
        }
    }
}
