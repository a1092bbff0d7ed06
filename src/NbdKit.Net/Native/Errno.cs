namespace NbdKit.Native;

/// <summary>The error numbers of Linux that are told apart here (asm-generic/errno.h).</summary>
internal static class Errno
{
    public const int NotPermitted = 1;
    public const int NoEntry = 2;
    public const int Interrupted = 4;
    public const int IoError = 5;
    public const int NoSuchAddress = 6;
    public const int NotExecutable = 8;
    public const int TryAgain = 11;
    public const int OutOfMemory = 12;
    public const int AccessDenied = 13;
    public const int Busy = 16;
    public const int NoDevice = 19;
    public const int NotDirectory = 20;
    public const int Invalid = 22;
    public const int NotTerminal = 25;
    public const int TextBusy = 26;
    public const int TooLarge = 27;
    public const int NoSpace = 28;
    public const int ReadOnlyFileSystem = 30;
    public const int NotImplemented = 38;
    public const int Loop = 40;
    public const int NotSupported = 95;
    public const int QuotaExceeded = 122;
}
