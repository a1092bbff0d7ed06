namespace NbdKit.Tests.Testing;

/// <summary>A request as a scripted server received it.</summary>
/// <param name="Extended">Whether it had an extended header.</param>
/// <param name="Flags">Its flags.</param>
/// <param name="Type">What it asks for.</param>
/// <param name="Cookie">Its cookie.</param>
/// <param name="Offset">Its offset.</param>
/// <param name="Length">Its length.</param>
/// <param name="Data">Its payload.</param>
internal sealed record WireRequest(
    bool Extended, ushort Flags, ushort Type, ulong Cookie, ulong Offset, ulong Length, byte[] Data);
